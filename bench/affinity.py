"""Prefix hits and balance of a simulated fleet, for several ways to choose a pod.

Time is simulated. A pod computes some requests at once and remembers the prefixes that it has seen
last. A request with a known prefix takes a third of the time of any other one.
"""

import heapq
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.table import Table
from extproc.types import Placing
from headgate.core.rendezvous import ordered
from headgate.placement.exchange import EXCHANGE_EVERY_S
from headgate.placement.loads import Change, PodLoads
from headgate.placement.places import BOUND_PERCENT, BoundedPlaces

PODS = tuple(f"10.0.0.{number}:8000" for number in range(1, 21))
SLOTS = 4
KEPT_PREFIXES = 12
HIT_S, MISS_S = 1.0, 3.0
GATEWAYS = 4
CLIENTS = 72
"""Nine of ten slots are busy if every request misses."""
HOT_SHARE = 0.3
"""The part of the requests with one and the same prefix."""
TAIL = 160
"""The number of the other prefixes, each as frequent as the others."""
LOG_DELAY_S = 0.2
"""An access log tells the end of a request so much later, to any of the replicas."""
REQUESTS = 20_000


class Agenda:
    """Events in the order of their simulated time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._number, event))

    def next(self) -> None:
        self.now_s, _, event = heapq.heappop(self._events)
        event()


@dataclass
class Pod:
    """A pod with slots, a queue and a prefix cache."""

    agenda: Agenda
    running: int = 0
    waiting: deque[tuple[str, Callable[[], None]]] = field(default_factory=deque)
    prefixes: OrderedDict[str, None] = field(default_factory=OrderedDict)
    served: int = 0
    hits: int = 0

    def ask(self, prefix: str, answered: Callable[[], None]) -> None:
        self.waiting.append((prefix, answered))
        self._start()

    def _start(self) -> None:
        while self.waiting and self.running < SLOTS:
            prefix, answered = self.waiting.popleft()
            self.running += 1
            self.agenda.after(self._seconds_for(prefix), partial(self._end, answered))

    def _end(self, answered: Callable[[], None]) -> None:
        self.running -= 1
        answered()
        self._start()

    def _seconds_for(self, prefix: str) -> float:
        is_hit = prefix in self.prefixes
        self.prefixes[prefix] = None
        self.prefixes.move_to_end(prefix)
        if len(self.prefixes) > KEPT_PREFIXES:
            self.prefixes.popitem(last=False)
        self.served += 1
        self.hits += is_hit
        return HIT_S if is_hit else MISS_S


class Chooser:
    """By the fewest requests, as each gateway counts its own."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.open = [Counter[str]() for _ in range(GATEWAYS)]

    def choose(self, gateway: int, prefix: str) -> str:  # noqa: ARG002
        pod = min(random.sample(PODS, len(PODS)), key=self.open[gateway].__getitem__)
        return self._taken(gateway, pod)

    def end(self, gateway: int, pod: str, began_s: float) -> None:  # noqa: ARG002
        self.open[gateway][pod] -= 1

    def _taken(self, gateway: int, pod: str) -> str:
        self.open[gateway][pod] += 1
        return pod


class ByHash(Chooser):
    """By a hash, as Envoy's rings do; with a bound in percent of the mean of one gateway."""

    def __init__(self, agenda: Agenda, bound_percent: int | None = None) -> None:
        super().__init__(agenda)
        self._bound_percent = bound_percent

    def choose(self, gateway: int, prefix: str) -> str:
        counts, order = self.open[gateway], ordered(prefix, PODS)
        if self._bound_percent is None:
            return self._taken(gateway, order[0])
        most = self._bound_percent * (sum(counts.values()) + 1) / (100 * len(PODS))
        found = (pod for pod in order if counts[pod] + 1 <= max(1, most))
        return self._taken(gateway, next(found, min(PODS, key=counts.__getitem__)))


class ByHeadgate(Chooser):
    """By Headgate, with a replica at each gateway, as it runs."""

    def __init__(self, agenda: Agenda) -> None:
        super().__init__(agenda)
        self._sums: Counter[Change] = Counter()
        self._loads = [PodLoads(lambda: agenda.now_s) for _ in range(GATEWAYS)]
        self._places = [BoundedPlaces(lambda pods: pods, loads) for loads in self._loads]
        self._exchange()

    def choose(self, gateway: int, prefix: str) -> str:
        return self._places[gateway].hosts(PODS, Placing(PODS, {}, prefix, SLOTS))[0]

    def end(self, gateway: int, pod: str, began_s: float) -> None:  # noqa: ARG002
        told = random.randrange(GATEWAYS)
        self.agenda.after(LOG_DELAY_S, partial(self._places[told].ended, pod, began_s))

    def _exchange(self) -> None:
        for loads in self._loads:
            told = loads.untold()
            self._sums.update(told)
            loads.learn(told, self._sums)
        self.agenda.after(EXCHANGE_EVERY_S, self._exchange)


WAYS: dict[str, Callable[[Agenda], Chooser]] = {
    "fewest requests": Chooser,
    "hash": ByHash,
    "hash, bound 150 at each gateway": lambda agenda: ByHash(agenda, 150),
    f"Headgate, bound {BOUND_PERCENT} in the fleet": ByHeadgate,
}


async def measure(requests: int = REQUESTS) -> Sequence[Table]:
    """One row for each way to choose: hits, balance, and how long answers take."""
    rows = []
    for name, way in WAYS.items():
        pods, took_s = _run(way, requests)
        counts = [pod.served for pod in pods]
        hits = sum(pod.hits for pod in pods) / sum(counts)
        took_s.sort()
        rows.append(
            (
                name,
                f"{hits:.0%}",
                f"{max(counts) * len(counts) / sum(counts):.2f}",
                f"{sum(took_s) / len(took_s):.2f} s",
                f"{took_s[len(took_s) * 95 // 100]:.2f} s",
            )
        )
    columns = ("way to choose", "prefix hits", "busiest/mean", "mean", "p95")
    title = f"Affinity: {len(PODS)} pods, {GATEWAYS} gateways, {HOT_SHARE:.0%} with one prefix"
    return [Table(title, columns, tuple(rows))]


def _run(way: Callable[[Agenda], Chooser], requests: int) -> tuple[list[Pod], list[float]]:
    """Clients that ask again as soon as they are answered, spread over the gateways."""
    random.seed(7)
    agenda = Agenda()
    chooser = way(agenda)
    pods = {name: Pod(agenda) for name in PODS}
    took_s: list[float] = []

    def ask(gateway: int) -> None:
        is_hot = random.random() < HOT_SHARE
        prefix = "hot" if is_hot else f"prefix {random.randrange(TAIL)}"
        name, began_s = chooser.choose(gateway, prefix), agenda.now_s

        def answered() -> None:
            took_s.append(agenda.now_s - began_s)
            chooser.end(gateway, name, began_s)
            agenda.after(0.0, partial(ask, gateway))

        pods[name].ask(prefix, answered)

    for client in range(CLIENTS):
        agenda.after(random.random(), partial(ask, client % GATEWAYS))
    while len(took_s) < requests:
        agenda.next()
    return list(pods.values()), took_s
