"""How many requests find their adapter loaded, in a simulated fleet with the reconciler's planner?

Time is simulated, in rounds of one second. A load takes one round.
"""

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import mean

from bench.table import Table
from headgate.adapters.plan.planner import plan
from headgate.adapters.plan.values import (
    GONE_S,
    LATE_S,
    Known,
    Load,
    Plan,
    Pool,
    SeenPod,
    Spot,
    Wanted,
)

PODS = tuple(f"10.0.0.{number}:8000" for number in range(1, 21))
ADAPTERS = 2_000
REQUESTS_S = 20
"""Requests a second of the whole fleet."""
RUNS_S = 5
"""A request runs for so long."""
WARM_S, MEASURED_S = 600, 900
RESTART_EVERY_S, RESTART_TAKES_S = 90, 20
_START_S = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Case:
    """Slots of each pod (`live` of `listed`), and how unequal the adapters are asked for."""

    live: int
    listed: int
    exponent: float


CASES = (Case(8, 32, 1.0), Case(16, 32, 1.0), Case(8, 32, 1.4), Case(16, 32, 1.4))


@dataclass(slots=True)
class Seen:
    """Counts of the measured time. The moves are places that a restart or a loss gave elsewhere."""

    requests: int = 0
    found: int = 0
    loads: int = 0
    restart_moves: list[int] = field(default_factory=list)
    loss_moves: list[int] = field(default_factory=list)
    lost_places: list[int] = field(default_factory=list)


class Fleet:
    """The pods, the requests, and one planner."""

    def __init__(self, case: Case) -> None:
        self.seen = Seen()
        self._case = case
        self._random = random.Random(11)
        self._versions = [f"adapter-{number}@1" for number in range(ADAPTERS)]
        self._roots = {version: f"/adapters/{version}" for version in self._versions}
        self._shares = list(accumulate(shares(case.exponent)))
        self._used_s = dict.fromkeys(self._versions, _START_S - 86_400)
        self._in_flight: Counter[str] = Counter()
        self._ends: deque[tuple[float, str]] = deque()
        self._listed: dict[str, dict[str, str]] = {pod: {} for pod in PODS}
        self._silent_since_s: dict[str, float] = {}
        self._plan = Plan(places=frozenset(), open=frozenset())

    def run(self, warm_s: int, measured_s: int) -> Seen:
        """The counts after the time to warm up."""
        for second in range(warm_s + measured_s):
            if second == warm_s:
                self.seen = Seen()
            self._round(_START_S + second, restarts=second % RESTART_EVERY_S == 0)
        return self.seen

    def _round(self, now_s: float, *, restarts: bool) -> None:
        self._ask(now_s)
        if restarts:
            self._restart(now_s)
        self._plan = self._planned(now_s, self._silent_since_s)
        for action in self._plan.actions:
            listed = self._listed[action.spot.pod]
            if isinstance(action, Load):
                listed[action.spot.version] = self._roots[action.spot.version]
                self.seen.loads += 1
            else:
                del listed[action.spot.version]

    def _ask(self, now_s: float) -> None:
        """The requests of this second. One without a place is refused, and counts as a use."""
        while self._ends and self._ends[0][0] <= now_s:
            self._in_flight[self._ends.popleft()[1]] -= 1
        ready = {spot.version for spot in self._plan.open}
        for version in self._random.choices(self._versions, cum_weights=self._shares, k=REQUESTS_S):
            self._used_s[version] = now_s
            self.seen.requests += 1
            if version in ready:
                self.seen.found += 1
                self._in_flight[version] += 1
                self._ends.append((now_s + RUNS_S, version))

    def _restart(self, now_s: float) -> None:
        """A pod begins to restart. Notes what that moves, and what it would if the pod was lost."""
        pod = self._random.choice(PODS)
        before = self._planned(now_s, self._silent_since_s).places
        own = {spot for spot in before if spot.pod == pod}
        for silent_s, moves in (
            (RESTART_TAKES_S, self.seen.restart_moves),
            (GONE_S, self.seen.loss_moves),
        ):
            silent = {**self._silent_since_s, pod: now_s - silent_s}
            moves.append(len(self._planned(now_s, silent, before).places - before))
        self.seen.lost_places.append(len(own))
        self._silent_since_s[pod] = now_s
        self._listed[pod] = {}

    def _planned(
        self,
        now_s: float,
        silent_since_s: dict[str, float],
        places: frozenset[Spot] | None = None,
    ) -> Plan:
        wanted = [
            Wanted(version=one, copies=1, used_s=used_s, in_flight=self._in_flight[one])
            for one, used_s in self._used_s.items()
        ]
        pods = tuple(self._pod(pod, now_s, silent_since_s) for pod in PODS)
        pool = Pool(live=self._case.live, listed=self._case.listed, pods=pods)
        known = Known(places=self._plan.places if places is None else places)
        return plan(wanted, pool, known, self._roots, now_s)

    def _pod(self, pod: str, now_s: float, silent_since_s: dict[str, float]) -> SeenPod:
        silent_s = now_s - silent_since_s.get(pod, now_s)
        if silent_s >= RESTART_TAKES_S and silent_since_s is self._silent_since_s:
            del self._silent_since_s[pod]
            silent_s = 0.0
        listed = None if silent_s >= LATE_S else dict(self._listed[pod])
        return SeenPod(address=pod, listed=listed, silent_s=silent_s)


def shares(exponent: float) -> list[float]:
    """The share of each adapter in the requests, by Zipf's law."""
    weights = [1 / rank**exponent for rank in range(1, ADAPTERS + 1)]
    return [weight / sum(weights) for weight in weights]


async def measure(
    cases: Sequence[Case] = CASES, warm_s: int = WARM_S, measured_s: int = MEASURED_S
) -> Sequence[Table]:
    """One row for each case."""
    rows = []
    for case in cases:
        seen = Fleet(case).run(warm_s, measured_s)
        best = sum(shares(case.exponent)[: case.live * len(PODS)])
        rows.append(
            (
                f"{case.live} of {case.listed}, {case.exponent}",
                f"{seen.found / seen.requests:.0%}",
                f"{best:.0%}",
                round(seen.loads * 60 / measured_s),
                f"{mean(seen.lost_places):.1f}",
                f"{mean(seen.restart_moves):.1f}",
                f"{mean(seen.loss_moves):.1f}",
            )
        )
    return [Table(_TITLE, _COLUMNS, tuple(rows))]


_TITLE = f"Placement: {len(PODS)} pods, {ADAPTERS:,} adapters, {REQUESTS_S} requests/s"
_COLUMNS = (
    "slots, exponent",
    "found it loaded",
    "with the most popular loaded",
    "loads a minute",
    "places of a pod",
    "moved by its restart",
    "moved by its loss",
)
