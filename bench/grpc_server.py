"""The cost of one call of a hook for the services, on our own gRPC server and on grpcio's.

Both servers answer the same Check of ext_authz, each in a process of its own, in turns. The client
sends the frames that Envoy sends, with the headers of its gRPC client.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import uvloop
from hpack import Decoder, Encoder
from prometheus_client import CollectorRegistry

from bench.main import run
from bench.measure import context_switches, cpu_s
from bench.table import Cell, Table
from extauthz.failures import FailureLimit
from extauthz.service import Authorization
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.core.rpc import Method
from headgate.grpc_server import frames
from headgate.grpc_server.aio import AioServer
from headgate.grpc_server.frames import ACK, END_HEADERS, END_STREAM, PREFACE, FrameReader, Kind
from headgate.grpc_server.messages import framed
from headgate.grpc_server.server import Server
from headgate.identity.issuers.fetch import HttpFetch
from headgate.identity.issuers.source import IssuerKeys
from headgate.identity.verifier import TokenVerifier
from tests.extauthz.builders import KEY, POLICY, check_request

ROUNDS = 5
CALLS = 4_000
IN_FLIGHT = (1, 16)
_SERVERS: dict[str, Callable[[Sequence[Method]], Server | AioServer]] = {
    "own": Server,
    "grpcio": AioServer,
}
_CHECK = "/envoy.service.auth.v3.Authorization/Check"
_HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", _CHECK),
    (":authority", "services"),
    ("te", "trailers"),
    ("grpc-timeout", "500m"),
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-envoy-expected-rq-timeout-ms", "500"),
)


class LoadingClient(asyncio.Protocol):
    """Keeps some calls in flight on one connection, until `calls` have been answered."""

    def __init__(self, message: bytes) -> None:
        self._message = framed(message)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._reader = FrameReader()
        self._stream_id = 1
        self._unsent = 0
        self._unanswered = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.set_result(None)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        window = frames.window_update(0, 2**30)
        self._transport.write(PREFACE + frames.settings({}) + window)

    async def load(self, calls: int, in_flight: int) -> None:
        """Returns once all calls have been answered. Raises ValueError for a failed one."""
        assert self._transport is not None
        self._unsent, self._unanswered = calls, calls
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(b"".join(self._call() for _ in range(min(in_flight, calls))))
        await self._done

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        out = []
        for kind, flags, _, payload in self._reader.feed(data):
            match kind:
                case Kind.HEADERS if self._is_last(payload):
                    out += [self._call()] if self._unsent else []
                case Kind.SETTINGS | Kind.PING if not flags & ACK:
                    out.append(frames.frame(kind, ACK, 0, payload if kind == Kind.PING else b""))
                case Kind.RST_STREAM | Kind.GOAWAY:
                    self._done.set_exception(ValueError(f"a call was ended: {payload!r}"))
        if out:
            self._transport.write(b"".join(out))
        if not self._unanswered and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ValueError(f"the server has closed: {error}"))

    def _is_last(self, block: bytes) -> bool:
        """Reads the status of a call, if the block has one."""
        fields = {
            bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)
        }
        status = fields.get(b"grpc-status")
        if status is None:
            return False
        if status != b"0" and not self._done.done():
            self._done.set_exception(ValueError(f"a call failed with status {status!r}"))
        self._unanswered -= 1
        return True

    def _call(self) -> bytes:
        self._unsent -= 1
        stream_id, self._stream_id = self._stream_id, self._stream_id + 2
        block = self._encoder.encode(_HEADERS)
        head = frames.frame(Kind.HEADERS, END_HEADERS, stream_id, block)
        return head + frames.frame(Kind.DATA, END_STREAM, stream_id, self._message)


@dataclass
class Cost:
    """The cost of the calls of one server, all turns together."""

    calls: int = 0
    cpu_s: float = 0.0
    switches: int = 0


async def measure(rounds: int = ROUNDS, calls: int = CALLS) -> list[Table]:
    """Processor time and context switches of the server, for each call."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        pids = {}
        for name in _SERVERS:
            pids[name] = stack.enter_context(_serving(name, Path(folder)))
        costs = {(name, count): Cost() for count in IN_FLIGHT for name in _SERVERS}
        clients = {name: await _connected(Path(folder) / name) for name in _SERVERS}
        for client in clients.values():
            await client.load(calls, IN_FLIGHT[-1])  # warms up
        for _ in range(rounds):
            for (name, in_flight), cost in costs.items():
                await _take_turn(clients[name], pids[name], calls, in_flight, cost)
    return [_table(costs)]


async def _take_turn(
    client: LoadingClient, pid: int, calls: int, in_flight: int, cost: Cost
) -> None:
    before = cpu_s(pid), context_switches(pid)
    await client.load(calls, in_flight)
    cost.calls += calls
    cost.cpu_s += cpu_s(pid) - before[0]
    cost.switches += context_switches(pid) - before[1]


def _table(costs: dict[tuple[str, int], Cost]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for (name, in_flight), cost in costs.items():
        each_s = cost.cpu_s / cost.calls
        reference = costs["grpcio", in_flight]
        ratio = each_s / (reference.cpu_s / reference.calls) if reference.cpu_s else 0.0
        rows.append((name, in_flight, round(each_s * 1e6), ratio, cost.switches / cost.calls))
    return Table(
        "One Check on our own gRPC server and on grpc.aio",
        ("server", "in flight", "CPU us a call", "CPU against grpcio", "context switches a call"),
        rows,
        "Processor time of the server's process; the decision of ext_authz is part of it.",
    )


async def _connected(path: Path) -> LoadingClient:
    message = check_request(("authorization", f"Bearer {KEY}".encode())).SerializeToString()
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(lambda: LoadingClient(message), str(path))
    return client


@contextmanager
def _serving(name: str, folder: Path) -> Iterator[int]:
    """A server in a process of its own; yields its process id."""
    command = [sys.executable, "-m", "bench.grpc_server", "--serve", name, str(folder / name)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - this very module
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), f"the server {name} has not started"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


async def _serve(name: str, path: str) -> None:
    clock = SystemClock()
    metrics = Metrics(CollectorRegistry(), clock)
    verifier = TokenVerifier(IssuerKeys(dict, HttpFetch(), clock, metrics), clock, metrics)
    failures = FailureLimit(per_minute=60)
    service = Authorization(lambda: POLICY, verifier, failures, clock, metrics)
    server = _SERVERS[name](service.methods())
    await server.start(f"unix:{path}")
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(_serve(*sys.argv[2:4]))
    else:
        run({"grpc_server": measure})
