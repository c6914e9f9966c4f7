"""Memory, open files and processor time of each process, sampled while a soak runs."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one time (monotonic seconds)."""

    at_s: float
    rss_bytes: int
    files: int
    cpu_s: float


@dataclass
class Watch:
    """`pids` names the processes as they are now: a killed one comes back under another pid.

    `redis_data` is the memory that Redis has given to data, in bytes.
    """

    pids: Callable[[], Mapping[str, int]]
    redis_data: Callable[[], int]
    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    data: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.take)
            await asyncio.sleep(EVERY_S)

    def take(self) -> None:
        """Samples all of them once; one that has just died has no sample."""
        for name, pid in self.pids().items():
            sample = _sample(pid)
            if sample is not None:
                self.samples.setdefault((name, pid), []).append(sample)
        self.data.append(Sample(time.monotonic(), self.redis_data(), 0, 0.0))

    def cpu_s(self) -> float:
        """The processor time in seconds that all of them used from their first sample on."""
        return sum(taken[-1].cpu_s - taken[0].cpu_s for taken in self.samples.values())

    def latest(self) -> dict[str, Sample]:
        """The last sample of each process by its name."""
        return {name: taken[-1] for (name, _), taken in list(self.samples.items())}


@dataclass(frozen=True, slots=True)
class Memory:
    """Mean memory of a process that lived through both spans, in bytes."""

    first: float
    middle: float
    last: float

    @property
    def growth(self) -> float:
        """The part by which the last third is above the middle one."""
        return self.last / self.middle - 1


def memory(taken: list[Sample], start_s: float, end_s: float) -> Memory | None:
    """None for a process that was not there from the first third on."""
    third_s = (end_s - start_s) / 3
    thirds = [
        [sample.rss_bytes for sample in taken if low <= (sample.at_s - start_s) / third_s < low + 1]
        for low in range(3)
    ]
    if taken[0].at_s > start_s + third_s or not all(thirds):
        return None
    return Memory(*(mean(third) for third in thirds))


def _sample(pid: int) -> Sample | None:
    proc = Path(f"/proc/{pid}")
    try:
        pages = int((proc / "statm").read_text().split()[1])
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        files = len(os.listdir(proc / "fd"))
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    rss_bytes = pages * os.sysconf("SC_PAGE_SIZE")
    return Sample(time.monotonic(), rss_bytes, files, ticks / os.sysconf("SC_CLK_TCK"))
