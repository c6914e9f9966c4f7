"""How many requests pass a limit that has room for ten, when a thousand come at once?

It runs a real Envoy with one worker, replicas of `headgate serve` and the vLLM simulator. Each
request is estimated at exactly 1,000 tokens. No admitted answer ends before the last request is
decided: nothing is given back and nothing learned. So exactly ten fit a limit of 10,000.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.main import run
from bench.table import Table
from extproc.estimate import Estimator, PromptSize, Subject
from headgate.core.lean_contract import HookPath
from tests.box import KEYS, policy
from tests.envoy.fleet import Fleet, fleet_to_start
from tests.patience import wait_until
from tests.simulator_process import simulator_process

REQUESTS = 1_000
TOKENS = 1_000
LIMIT = 10_000
_PATH = "/v1/chat/completions"
_CONTEXT_TOKENS = 8192
_CONNECTING = 64
_MESSAGES = [{"role": "user", "content": "Hello"}]
_DECIDED_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Setup:
    """One row: where the counter is, and how many replicas decide. `more` are keys of the limit.

    Each replica has this number of `workers`. `path` is how Envoy asks; by default as the tests of
    this run do.
    """

    store: str
    replicas: int
    more: str = ""
    limit: int = LIMIT
    workers: int = 1
    path: HookPath | None = None

    @property
    def limits(self) -> str:
        return f"[{{count: tokens, limit: {self.limit}, per: year{self.more}}}]"


SETUPS = (
    Setup("memory", 1),
    Setup("Redis", 1),
    Setup("Redis", 3),
    Setup("Redis", 1, workers=4),
    Setup("Redis", 3, ", slice: 1000"),
    Setup("Redis", 3, ", slice: 5000"),
    Setup("memory", 1, path=HookPath.LEAN),
    Setup("Redis", 3, path=HookPath.LEAN),
    Setup("Redis", 3, ", slice: 5000", path=HookPath.LEAN),
)


@dataclass(frozen=True, slots=True)
class OvershootOutcome:
    """The results of the requests.

    `held` is counted when all are decided and those admitted still run; `settled` when they have
    ended and are charged `charged` tokens in all.
    """

    statuses: Mapping[int, int]
    held: int
    charged: int
    settled: int


async def measure(setups: Sequence[Setup] = SETUPS, requests: int = REQUESTS) -> list[Table]:
    """A row for each setup. Raises AssertionError when another number is admitted."""
    rows = []
    async with simulator_process("--model", "tiny") as simulator:
        for setup in setups:
            with running(setup, simulator.url) as fleet:
                outcome = await overshoot(fleet, requests)
            check(outcome, requests, setup)
            rows.append(_row(setup, requests, outcome))
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


@contextmanager
def running(setup: Setup, upstream: str) -> Iterator[Fleet]:
    """Envoy in front of the replicas of one setup."""
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as name:
        text = policy(upstream, limits=setup.limits)
        with fleet_to_start(Path(name), text, upstream, setup.replicas, path=setup.path) as fleet:
            fleet.store = "memory" if setup.store == "memory" else ""
            fleet.options = ["--workers", str(setup.workers)]
            for number in fleet.numbers:
                fleet.start_services(number)
            fleet.start_envoy()
            yield fleet


async def overshoot(fleet: Fleet, requests: int) -> OvershootOutcome:
    """Sends this number of requests at once and looks at the counter before and after they end."""
    async with asyncio.timeout(_DECIDED_WITHIN_S):
        async with _connected(fleet.box.listen_port, requests) as connections:
            message = _message()
            statuses = Counter(
                await asyncio.gather(*(_status(connection, message) for connection in connections))
            )
            counted = await asyncio.to_thread(_counted, fleet)
    assert len(counted) == 1, f"replica and Redis disagree: {counted}"
    charged = await asyncio.to_thread(_charged, fleet, statuses[200])
    settled = await asyncio.to_thread(_settled, fleet, charged)
    return OvershootOutcome(statuses, counted.pop(), charged, settled)


def check(outcome: OvershootOutcome, requests: int, setup: Setup) -> None:
    """Exactly the requests that fit were admitted, and the count equals the charged tokens."""
    fit = LIMIT // TOKENS
    expected = OvershootOutcome(
        {200: fit, 429: requests - fit}, LIMIT, outcome.charged, outcome.charged
    )
    if outcome != expected:
        raise AssertionError(f"{setup}: {outcome}")


_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _connected(port: int, number: int) -> AsyncIterator[list[_Connection]]:
    """Open connections. The end of the block closes them and aborts all running streams."""
    turns = asyncio.Semaphore(_CONNECTING)

    async def connect() -> _Connection:
        async with turns:
            return await asyncio.open_connection("127.0.0.1", port)

    connections = await asyncio.gather(*(connect() for _ in range(number)))
    try:
        yield connections
    finally:
        for _, writer in connections:
            writer.close()


async def _status(connection: _Connection, message: bytes) -> int:
    """Sends the request and reads its answer's head; the rest of the answer stays there."""
    reader, writer = connection
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


def _message() -> bytes:
    """A streamed request that is estimated at TOKENS, and whose answer stalls after some events."""
    text_bytes = len(json.dumps(_MESSAGES, separators=(",", ":")))
    estimate = Estimator().estimate(
        Subject("", "", ""),
        PromptSize(text_bytes),
        max_tokens=0,
        n=1,
        context_tokens=_CONTEXT_TOKENS,
    )
    body = _body(TOKENS - estimate.prompt)
    head = (
        f"POST {_PATH} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEYS['alice']}\r\n"
        "content-type: application/json\r\nx-simulate: stall_after=5\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _body(max_tokens: int) -> bytes:
    fields = {"model": "tiny", "stream": True, "max_tokens": max_tokens, "messages": _MESSAGES}
    return json.dumps(fields).encode()


def _counted(fleet: Fleet) -> set[int]:
    """The count of the caller's only limit now, by enforcement and by Redis if there is one."""
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    answer = httpx.get(f"{fleet.url}/v1/headgate/limits", headers=headers, timeout=30)
    (limit,) = answer.raise_for_status().json()["data"]
    counts = {int(limit["used"])}
    if fleet.store != "memory":
        with closing(fleet.redis.client()) as client:
            (key,) = client.scan_iter(match="{hg:acme}c:*")
            counts.add(int(client.get(key) or 0))
    return counts


def _charged(fleet: Fleet, admitted: int) -> int:
    """The tokens charged to those admitted, by their usage records."""

    def records() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in fleet.records().splitlines()]
        answered = [
            record for record in lines if record["status"] == 200 and record["api"] == "chat"
        ]
        return answered if len(answered) == admitted else []

    ended = wait_until(records, "the usage records")
    return sum(record["prompt_tokens"] + record["completion_tokens"] for record in ended)


def _settled(fleet: Fleet, charged: int) -> int:
    """The final count, after waiting until it equals the charged tokens."""
    wait_until(lambda: _counted(fleet) == {charged}, "the counter to be settled")
    return charged


_TITLE = f"Parallel requests of {TOKENS:,} tokens at a limit of {LIMIT:,}"
_COLUMNS = (
    "store",
    "replicas",
    "workers of each",
    "requests at once",
    "admitted (200)",
    "refused (429)",
    "anything else",
    "counted while they run",
    "charged when they ended",
    "counted then",
)
_NOTE = "Through a real Envoy. Ten fit."


def _row(setup: Setup, requests: int, outcome: OvershootOutcome) -> tuple[str | int | float, ...]:
    admitted, refused = outcome.statuses.get(200, 0), outcome.statuses.get(429, 0)
    return (
        f"{setup.store}{setup.more}" + (f", {setup.path}" if setup.path else ""),
        setup.replicas,
        setup.workers,
        requests,
        admitted,
        refused,
        requests - admitted - refused,
        outcome.held,
        outcome.charged,
        outcome.settled,
    )


if __name__ == "__main__":
    run({"overshoot": measure})
