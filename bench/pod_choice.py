"""The CPU of the choice of pods: a box without it, with `pods`, and with hashed prompts.

The boxes take turns, as in `bench.path`. Trust the ratios of one run.
"""

import asyncio
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack

from bench.main import run
from bench.path import LIMITS, Stack, box, take_turns, upstream
from bench.table import Cell, Table
from headgate.core.lean_contract import HookPath
from tests.box import policy

ROUNDS = 9
REQUESTS = 1_000
PODS = 3
SALT = "0123456789abcdef"


async def measure(rounds: int = ROUNDS, requests: int = REQUESTS) -> Sequence[Table]:
    """A row for each box: Envoy and the services, and what both cost above the first box."""
    async with AsyncExitStack() as running:
        urls = [await running.enter_async_context(upstream()) for _ in range(PODS)]
        stacks = []
        for started in _stacks(urls):  # in a thread: a box asks the upstream at its start
            stacks.append(await asyncio.to_thread(running.enter_context, started))
        await take_turns(stacks, rounds, requests)
    half = len(stacks) // 2
    return [_table([*_rows(stacks[:half]), *_rows(stacks[half:])])]


def _stacks(urls: Sequence[str]) -> Iterator[AbstractContextManager[Stack]]:
    pods = json.dumps([url.removeprefix("http://") for url in urls])
    plain = policy(urls[0], forces_usage=True, limits=LIMITS)
    more = f"    pods: {pods}\n    affinity: prompt\n    context_tokens"
    placed = plain.replace("    context_tokens", more, 1)
    for path in HookPath:
        yield box(f"{path}, no pods", plain, path)
        yield box(f"{path}, pods", placed, path)
        yield box(f"{path}, pods and hashed prompts", placed, path, "--affinity-salt", SALT)


def _rows(stacks: Sequence[Stack]) -> Iterator[tuple[Cell, ...]]:
    first = stacks[0].spent_us
    for stack in stacks:
        above = [
            [spent[part] - base[part] for spent, base in zip(stack.spent_us, first, strict=True)]
            for part in (0, 1)
        ]
        envoy, services, _ = stack.median_us()
        least = (min(spent[part] for spent in stack.spent_us) for part in (0, 1))
        medians = (statistics.median(each) for each in above)
        yield (stack.name, *map(round, (envoy, services, *least, *medians)))


def _table(rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        "CPU of one short request with and without the choice of pods, in us",
        (
            "box",
            "Envoy",
            "services",
            "least Envoy",
            "least services",
            "Envoy above no pods",
            "services above no pods",
        ),
        rows,
        f"Medians of the rounds. {PODS} pods. What is above no pods is that of the same round.",
    )


if __name__ == "__main__":
    run({"pod_choice": measure})
