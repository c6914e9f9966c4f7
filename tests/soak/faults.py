"""The faults of a soak and their times: a schedule from a seed."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.envoy.fleet import Fleet, services

Fault = Literal["kill", "flush"]

QUIET_S = 12.0
"""At the beginning and at the end nothing fails."""
_BETWEEN_S = (10.0, 40.0)
_AWAY_S = (0.5, 5.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault `at_s` seconds after the start; a killed replica is started again `away_s` later."""

    at_s: float
    fault: Fault
    replica: int
    away_s: float


def plan(seed: int, lasts_s: float, replicas: int) -> Iterator[Planned]:
    """Faults until shortly before the end. Replica 1 is never killed: its memory is watched."""
    dice = random.Random(seed)
    at_s = QUIET_S
    while at_s < lasts_s - QUIET_S:
        fault: Fault = dice.choice(("kill", "flush"))
        yield Planned(at_s, fault, dice.randint(2, replicas), dice.uniform(*_AWAY_S))
        at_s += dice.uniform(*_BETWEEN_S)


@dataclass
class Faults:
    """Carries out a plan. `kills` are spans of time (epoch) in which a replica was away."""

    fleet: Fleet
    kills: list[tuple[float, float]] = field(default_factory=list)
    flushes: int = 0
    logs: list[tuple[str, str]] = field(default_factory=list)
    """What killed replicas had written: their files begin anew."""

    async def run(self, planned: Iterator[Planned]) -> None:
        start_s = time.monotonic()
        for fault in planned:
            await asyncio.sleep(max(0.0, start_s + fault.at_s - time.monotonic()))
            if fault.fault == "flush":
                await asyncio.to_thread(self._flush)
            else:
                await self._kill(fault)

    def _flush(self) -> None:
        with self.fleet.redis.client() as client:
            client.script_flush()
        self.flushes += 1

    async def _kill(self, fault: Planned) -> None:
        name = services(fault.replica)
        began_s = time.time()
        await asyncio.to_thread(self.fleet.kill, name)
        self.logs.append((name, self.fleet.log(name)))
        await asyncio.sleep(fault.away_s)
        await asyncio.to_thread(self.fleet.start_services, fault.replica)
        self.kills.append((began_s, time.time()))
