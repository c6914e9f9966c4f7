"""What does a request cost beside its decision?

It counts calls to Redis, and the processor time of Envoy and of the services, for short answers
and for long ones.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import perf_counter

import httpx

from bench.main import run
from bench.measure import cpu_s
from bench.overshoot import Setup, running
from bench.table import Cell, Table
from headgate.dataplane.listener import LISTENER
from tests.box import KEYS, small_chat
from tests.envoy.fleet import Fleet, services
from tests.simulator_process import simulator_process

ROUNDS = 10
_AT_ONCE = 16
_REST_S = 4.0
_LIMIT = 10**9
_TAP = "headgate.usage_tap"
_SHORT_TOKENS, _LONG_TOKENS = 16, 1_000

SETUPS = (
    Setup("memory", 1, limit=_LIMIT),
    Setup("Redis", 1, limit=_LIMIT),
    Setup("Redis", 1, ", slice: 100000", limit=_LIMIT),
)


@dataclass(kw_only=True)
class Cost:
    """The cost of one fleet's processes, in all turns together."""

    fleet: Fleet
    requests: int = 0
    redis_calls: int = 0
    services_s: float = 0.0
    envoy_s: float = 0.0
    idle: float = 0.0
    """The part of a processor that the services use without requests."""

    async def rest(self) -> None:
        """Measures the cost without requests."""
        before = self._used()
        await asyncio.sleep(_REST_S)
        self.idle = (self._used()[1] - before[1]) / _REST_S

    async def take_turn(self, requests: int, tokens: int) -> None:
        """Reads streamed answers of `tokens` tokens each, sixteen at a time."""
        before, start_s = self._used(), perf_counter()
        await _stream(self.fleet.url, requests, tokens)
        after, taken_s = self._used(), perf_counter() - start_s
        self.requests += requests
        self.redis_calls += after[0] - before[0]
        self.services_s += after[1] - before[1] - self.idle * taken_s
        self.envoy_s += after[2] - before[2]

    def _used(self) -> tuple[int, float, float]:
        processes = self.fleet.processes
        with closing(self.fleet.redis.client()) as client:
            calls = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        return calls, cpu_s(processes[services()].pid), cpu_s(processes["envoy"].pid)


async def measure(
    setups: Sequence[Setup] = SETUPS, rounds: int = ROUNDS, requests: int = 80
) -> list[Table]:
    """By store, then by the answer's length. Times are ratios to one of the rows."""
    async with simulator_process("--model", "tiny", "--ttft-s", "0") as simulator:
        by_store = await _by_store(setups, simulator.url, rounds, requests)
        by_length = await _by_length(simulator.url, rounds)
    return [by_store, by_length]


async def _by_store(setups: Sequence[Setup], upstream: str, rounds: int, requests: int) -> Table:
    with ExitStack() as stack:
        costs = [Cost(fleet=stack.enter_context(running(setup, upstream))) for setup in setups]
        await _in_turns(costs, [(requests, _SHORT_TOKENS)] * len(costs), rounds)
    rows: list[tuple[Cell, ...]] = []
    for setup, cost in zip(setups, costs, strict=True):
        name = f"{setup.store}{setup.more}"
        calls = cost.redis_calls / cost.requests
        rows.append((name, calls, *_ratios(cost, costs[0])))
    return Table(
        "A request by where its limit is counted",
        ("store", "calls to Redis per request", "services' CPU", "Envoy's CPU"),
        rows,
        "CPU per request, as a ratio to the first row.",
    )


async def _by_length(upstream: str, rounds: int) -> Table:
    setup = Setup("memory", 1, limit=_LIMIT)
    kinds = (("with", _SHORT_TOKENS), ("with", _LONG_TOKENS), ("without", _LONG_TOKENS))
    with ExitStack() as stack:
        tapped = stack.enter_context(running(setup, upstream))
        untapped = stack.enter_context(running(setup, upstream))
        _take_out_tap(untapped)
        costs = [Cost(fleet=tapped), Cost(fleet=tapped), Cost(fleet=untapped)]
        await _in_turns(costs, [(_AT_ONCE, tokens) for _, tokens in kinds], rounds)
    rows = [
        (tap, tokens, *_ratios(cost, costs[0]))
        for (tap, tokens), cost in zip(kinds, costs, strict=True)
    ]
    return Table(
        "A streamed answer by its length, with and without the usage tap",
        ("usage tap", "tokens", "services' CPU", "Envoy's CPU"),
        rows,
        "CPU per request, as a ratio to the first row. Each token is a chunk of its own.",
    )


async def _in_turns(costs: Sequence[Cost], turns: Sequence[tuple[int, int]], rounds: int) -> None:
    """Gives every fleet its turn, round and round; the first round only warms up."""
    for round_number in range(rounds + 1):
        for cost, (requests, tokens) in zip(costs, turns, strict=True):
            if round_number:
                await cost.take_turn(requests, tokens)
            else:
                await _stream(cost.fleet.url, requests, tokens)
                await cost.rest()


async def _stream(url: str, requests: int, tokens: int) -> None:
    """Reads streamed answers, sixteen at a time, each to its end."""
    body = {**small_chat(), "stream": True, "max_tokens": tokens}
    headers = {"authorization": f"Bearer {KEYS['alice']}", "x-simulate": "interval=0.001"}
    turns = asyncio.Semaphore(_AT_ONCE)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:

        async def ask() -> None:
            async with turns, client.stream("POST", "/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                async for _ in answer.aiter_raw():
                    pass

        await asyncio.gather(*(ask() for _ in range(requests)))


def _take_out_tap(fleet: Fleet) -> None:
    """Starts its Envoy again without the filter that reads the usage."""
    fleet.kill("envoy")
    listeners = json.loads(fleet.box.listeners_file.read_text())
    (listener,) = (one for one in listeners["resources"] if one["name"] == LISTENER)
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    filters = manager["typed_config"]["http_filters"]
    kept = [each for each in filters if each["name"] != _TAP]
    assert len(kept) == len(filters) - 1
    manager["typed_config"]["http_filters"] = kept
    fleet.box.listeners_file.write_text(json.dumps(listeners))
    fleet.start_envoy()


def _ratios(cost: Cost, first: Cost) -> tuple[float, float]:
    """Processor time per request in the services and in Envoy."""
    each = cost.requests / first.requests
    return cost.services_s / first.services_s / each, cost.envoy_s / first.envoy_s / each


if __name__ == "__main__":
    run({"calls": measure})
