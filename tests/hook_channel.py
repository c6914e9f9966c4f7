"""A client's channel to methods that Headgate's own gRPC server answers."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from headgate.core.rpc import Method
from headgate.grpc_server.server import Server


@asynccontextmanager
async def hook_channel(
    methods: Iterable[Method], options: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """Serves the methods on a free port for as long as the channel is open."""
    server = Server(methods)
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield channel
    finally:
        await server.drain(0)
