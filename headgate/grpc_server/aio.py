"""The same methods on grpc.aio. The tests of this package run on it too, as the reference."""

import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NoReturn

import grpc

from headgate.core.rpc import CallAbortedError, Method, Status
from headgate.grpc_server.server import MAX_MESSAGE_BYTES

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class AioServer:
    """Serves methods as `Server` does, by grpcio."""

    def __init__(
        self, methods: Iterable[Method], max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._server = grpc.aio.server(options=_options(max_message_bytes))
        self._server.add_generic_rpc_handlers((_Handlers(methods),))

    async def start(self, address: str) -> int:
        """Listens on `host:port` or `unix:PATH`; returns the port. Raises OSError."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"{address}: {error}") from error
        await self._server.start()
        return port

    async def adopt(self, connection: socket.socket) -> None:
        """grpc.aio takes no connection of another process."""
        raise NotImplementedError

    async def drain(self, grace_s: float) -> None:
        """Takes no more calls, lets those that run end, for `grace_s` at most."""
        await self._server.stop(grace_s)


class _Context:
    """grpc.aio's context as a method sees it."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._context = context

    def metadata(self, name: str) -> str | None:
        metadata = self._context.invocation_metadata() or ()
        return next((str(value) for key, value in metadata if key == name), None)

    def abort(self, status: Status, text: str) -> NoReturn:
        raise CallAbortedError(status, text)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, methods: Iterable[Method]) -> None:
        self._handlers = {method.path: _handler(method) for method in methods}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method; None for an unknown one."""
        return self._handlers.get(details.method)


def _handler(method: Method) -> Any:
    shape = (method.takes_stream, method.gives_stream)
    make, run = {
        (False, False): (grpc.unary_unary_rpc_method_handler, _once),
        (False, True): (grpc.unary_stream_rpc_method_handler, _many),
        (True, False): (grpc.stream_unary_rpc_method_handler, _once),
        (True, True): (grpc.stream_stream_rpc_method_handler, _many),
    }[shape]
    return make(
        run(method.behavior),
        request_deserializer=method.read,
        response_serializer=method.write,
    )


def _once(behavior: Callable[..., Any]) -> Callable[..., Any]:
    async def run(asked: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        try:
            return await behavior(asked, _Context(context))
        except CallAbortedError as error:
            await context.abort(_CODES[error.status], error.text)

    return run


def _many(behavior: Callable[..., AsyncIterator[Any]]) -> Callable[..., Any]:
    async def run(asked: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
        try:
            async for answer in behavior(asked, _Context(context)):
                yield answer
        except CallAbortedError as error:
            await context.abort(_CODES[error.status], error.text)

    return run


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        # A mesh has one connection for each proxy worker and thousands of short streams on it.
        ("grpc.max_concurrent_streams", 2**31 - 1),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Two programs on one port would each get half of the calls, in silence.
        ("grpc.so_reuseport", 0),
    ]
