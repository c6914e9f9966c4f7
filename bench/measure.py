"""Times and bytes, measured so that other load on the machine does not change their ratios."""

import multiprocessing
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from redis import Redis

T = TypeVar("T")

_TURN = 50
"""Calls to a candidate before the next one's turn: enough to have its data in the caches again."""

_WARM_UP = 10
"""Calls of each turn that are not counted."""


class Durations:
    """How long the same call took, many times."""

    def __init__(self) -> None:
        self._taken_s: list[float] = []

    def add(self, taken_s: float) -> None:
        self._taken_s.append(taken_s)

    def at(self, part: float) -> float:
        """The duration in seconds that `part` of the calls did not exceed."""
        ordered = sorted(self._taken_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def median_s(self) -> float:
        return self.at(0.5)

    @property
    def p99_s(self) -> float:
        return self.at(0.99)


async def in_turns(
    candidates: Sequence[Callable[[bool], Awaitable[None]]], calls_each: int
) -> None:
    """Calls each candidate in turn, a few times at once, round and round.

    Other load on the machine then meets all of them alike. Each learns whether the call counts.
    """
    for _ in range(-(-calls_each // _TURN)):
        for candidate in candidates:
            for call in range(_WARM_UP + _TURN):
                await candidate(call >= _WARM_UP)


async def timed(call: Awaitable[T], durations: Durations | None) -> T:
    """Awaits the call, and keeps how long it took."""
    start_s = perf_counter()
    result = await call
    if durations is not None:
        durations.add(perf_counter() - start_s)
    return result


def resident_bytes() -> int:
    """The memory of this process that is in RAM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmRSS")


def used_bytes(client: Redis) -> int:
    """The memory that this Redis has given to data."""
    return int(client.info("memory")["used_memory"])


def cpu_s(pid: int) -> float:
    """The processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def context_switches(pid: int) -> int:
    """How often the threads of a process have given up a processor, or lost it."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith(("voluntary_ctxt", "nonvoluntary_ctxt")):
                total += int(line.split()[1])
    return total


def in_fresh_process(work: Callable[..., T], *arguments: object) -> T:
    """Runs `work` in a new process, whose memory earlier measurements have not changed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(work, *arguments).result()
