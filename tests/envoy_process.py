"""A real Envoy between scripted hooks and a scripted upstream."""

import asyncio
import re
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx

from headgate._gen import accesslog_pb2
from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES, MAX_CONNECTIONS, Certificate, OneBox, Tracing
from headgate.dataplane.supervisor import Envoy
from headgate.dataplane.upstream import cluster_name
from tests.certificates import AUTHORITY
from tests.fake_hooks import MODEL, FakeServices
from tests.fake_upstream import Upstream, reply
from tests.patience import PATIENCE_S, patient
from tests.ports import free_port

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Rig:
    """Everything that runs for one test."""

    envoy: Envoy
    box: OneBox
    services: FakeServices
    upstream: Upstream
    server: grpc.aio.Server
    client: httpx.AsyncClient

    async def reset(self) -> None:
        """Scripts as at first, and nothing received."""
        await self.services.reset()
        self.upstream.answer = reply(200, b"{}")
        self.upstream.received.clear()

    async def post(
        self, body: Any = b'{"model": "tiny"}', path: str = CHAT, **headers: str
    ) -> httpx.Response:
        """Posts this body as JSON; `headers` replace the defaults."""
        sent = {"content-type": "application/json", **headers}
        return await self.client.post(path, content=body, headers=sent)

    async def logged(self) -> accesslog_pb2.HTTPAccessLogEntry:
        """The access log entry of the one request of this test."""
        await self.services.until(lambda: len(self.services.logs) == 1)
        return self.services.logs[0]

    async def raw(self, request: bytes) -> tuple[bytes, bytes]:
        """Sends these bytes as they are; returns the answer's head and its body."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.box.listen_port)
            try:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                return head, await reader.readexactly(int(length[1]) if length else 0)
            finally:
                writer.close()
                await writer.wait_closed()

    async def come_back(self) -> None:
        """Waits until requests pass again."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if (await self.post()).status_code == 200:
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def short_folder() -> AsyncIterator[Path]:
    """A temporary folder whose path leaves room for a unix socket's name (108 bytes in all)."""
    folder = Path(tempfile.mkdtemp(prefix="hg-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_box(
    folder: Path, upstreams: Mapping[str, str], body_limit_bytes: int = BODY_LIMIT_BYTES
) -> OneBox:
    """A box on a free port with its files in `folder`."""
    return OneBox(
        listen_host="127.0.0.1",
        listen_port=free_port(),
        services_sockets=[folder / "services.sock"],
        admin_socket=folder / "admin.sock",
        folder=folder / "envoy",
        upstreams=upstreams,
        body_limit_bytes=body_limit_bytes,
    )


@asynccontextmanager
async def running_envoy(
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    certificate: Certificate | None = None,
    max_connections: int = MAX_CONNECTIONS,
    counting: Counting = Counting.PROXY,
    tracing: Tracing | None = None,
    path: HookPath = HookPath.STANDARD,
    pods: Sequence[str] = (),
    affinity_salt: str | None = None,
) -> AsyncIterator[Rig]:
    """A real Envoy with scripted services, and one upstream for the model MODEL.

    With a `certificate` of the tests its client speaks TLS. With `pods` these serve MODEL.
    """
    services, upstream = FakeServices(), Upstream()
    await upstream.start()
    async with short_folder() as folder:
        box = replace(
            make_box(folder, {MODEL: upstream.url}, body_limit_bytes),
            certificate=certificate,
            max_connections=max_connections,
            counting=counting,
            tracing=tracing,
            path=path,
            pods={cluster_name(MODEL): pods} if pods else {},
            affinity_salt=affinity_salt,
        )
        server = await services.serve(box.services_sockets[0])
        envoy = Envoy(box, concurrency=1)
        try:
            with patient():
                await envoy.start()
            url = f"http{'s' if certificate else ''}://127.0.0.1:{box.listen_port}"
            trust = ssl.create_default_context(cafile=AUTHORITY)
            async with httpx.AsyncClient(base_url=url, verify=trust) as client:
                yield Rig(envoy, box, services, upstream, server, client)
        finally:
            await envoy.stop()
            await server.stop(None)
            await upstream.stop()
