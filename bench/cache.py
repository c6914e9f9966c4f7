"""The CPU of one short request with the answer cache: a hit, a miss, and a request without it.

All go through one box on the standard path, in turns, so that other load on the machine meets all
alike. Trust the ratios of one run. A request has a prompt of 1 KB and a JSON answer of 10 tokens.
Each tenant has two limits.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.main import run
from bench.path import IN_FLIGHT, Stack
from bench.table import Cell, Table
from tests.box import KEYS, policy, running_box
from tests.envoy.conftest import started_simulator
from tests.patience import wait_until
from tests.redis_server import running_redis

ROUNDS = 5
REQUESTS = 800
_LOGGED_S = 0.5
"""The access log comes within 200 ms, and is a part of the cost."""
_LIMITS = (
    "[{count: requests, limit: 1000000, per: day}, {count: tokens, limit: 1000000000, per: day}]"
)
"""Those of each tenant. They refuse nothing."""
_AT_ONCE = ("--ttft-s", "0", "--token-interval-s", "0")
KINDS = {
    "opted out": ("carol", 0, ""),
    "with chance (body only)": ("alice", 1, ""),
    "miss, recorded": ("alice", 0, "cache-control: no-cache\r\n"),
    "hit": ("alice", 0, ""),
}
"""By name: the caller, the temperature and one more header. The tenant of carol has no cache."""


async def measure(rounds: int = ROUNDS, requests: int = REQUESTS) -> Sequence[Table]:
    """A row for each kind of request."""
    with ExitStack() as running:
        box = await asyncio.to_thread(_started, running)
        stacks = {name: replace(box, name=name, spent_us=[]) for name in KINDS}
        for name in KINDS:
            await _load(box.port, name, requests // 4)
        for round_ in range(rounds):
            for name in list(KINDS) if round_ % 2 == 0 else list(KINDS)[::-1]:
                before = box.cpu_s()
                await _load(box.port, name, requests)
                await asyncio.sleep(_LOGGED_S)
                after = box.cpu_s()
                used = [(b - a) / requests * 1e6 for a, b in zip(before, after, strict=True)]
                stacks[name].spent_us.append((used[0], used[1], used[2]))
    return [_table(list(stacks.values()))]


def _table(stacks: Sequence[Stack]) -> Table:
    base = max(sum(stacks[0].median_us()), 1.0)  # the clock of the kernel may not have ticked
    rows: list[tuple[Cell, ...]] = []
    for stack in stacks:
        parts = stack.median_us()
        rows.append((stack.name, *map(round, parts), round(sum(parts)), sum(parts) / base))
    return Table(
        "CPU of one short request with the answer cache, in us",
        ("request", "Envoy", "services", "Redis", "all", "to opted out"),
        rows,
        f"{IN_FLIGHT} requests in flight. The CPU of the model is not in it: a hit needs none.",
    )


def _started(running: ExitStack) -> Stack:
    """A box with a cache for alice's tenant, on a Redis, in front of the simulator."""
    upstream = running.enter_context(started_simulator("--model", "tiny", *_AT_ONCE))
    server = running.enter_context(running_redis())
    folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hg-bench-")))
    more = f"    limits: {_LIMITS}\n"
    text = policy(upstream, forces_usage=True, limits=_LIMITS, more=more)
    text = text.replace("models: [private]", "models: [tiny]")
    text = text.replace("    prices:", "    answer_cache: {}\n    prices:", 1)
    text = text.replace("    timezone:", "    answer_cache: {}\n    timezone:", 1)
    (folder / "secret").write_text("0123456789abcdef" * 4)
    options = ("--path", "standard", "--cache-secret-file", str(folder / "secret"))
    box = running.enter_context(running_box(folder, text, "--store", server.url, *options))
    pid = box.process.pid
    (envoy,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    wait_until(lambda: box.chat().headers.get("x-headgate-cache"), "the cache")
    return Stack("", int(box.url.rpartition(":")[2]), int(envoy), pid, server.process.pid)


async def _load(port: int, name: str, requests: int) -> None:
    """Sends this number of requests, some at once. Raises AssertionError if one is refused."""
    message = _message(*KINDS[name])

    async def one_after_the_other(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(number):
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await _read_body(reader, head)
        writer.close()

    await asyncio.gather(*(one_after_the_other(requests // IN_FLIGHT) for _ in range(IN_FLIGHT)))


def _message(user: str, temperature: int, header: str) -> bytes:
    messages = [{"role": "user", "content": "word " * 190}]
    body = {"model": "tiny", "max_tokens": 10, "temperature": temperature, "messages": messages}
    sent = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEYS[user]}\r\ncontent-length: {len(sent)}\r\n{header}\r\n"
    )
    return head.encode() + sent


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    """Reads the body of an answer: with a length, or in chunks where a service has recorded it."""
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            await reader.readexactly(int(line.rpartition(b" ")[2]))
            return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


if __name__ == "__main__":
    run({"cache": measure})
