"""Start-time fair tags: numbers that order the waiting requests of several tenants. Pure.

A tenant's next request starts where its last one finished, but not before the virtual time of the
queue: `start = max(virtual time, finish)`, then `finish = start + work`. At the end the finish is
corrected by what the request really used (P. Goyal, H. Vin, H. Cheng, "Start-time fair queueing",
1996, with costs that are known only at the end).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_TAG = 2**53
"""The largest tag: numbers in Redis scripts are doubles."""
FINISH_KEPT_S = 3600
"""How long a finish is kept without a request. By then the virtual time has passed it."""
UNITS_PER_TOKEN = 16
"""A token of a prompt, for a tenant of weight 1. Finer units would wear the tags out in years."""
OUTPUT_COST = 4
"""An output token costs vLLM as much as some tokens of a prompt, which it computes together."""
_MAX_FINISHES = 100_000


@dataclass(frozen=True, slots=True)
class Rates:
    """The work of a token of each kind, in thousandths of a unit.

    A token that the prefix cache has is no work.
    """

    input: int
    output: int

    @classmethod
    def of_weight(cls, weight: int) -> "Rates":
        """For a tenant of this weight: twice the weight, half the work."""
        each = 1000 * UNITS_PER_TOKEN // weight
        return cls(each, OUTPUT_COST * each)

    def work(self, input: int, output: int) -> int:
        """The work of these tokens, rounded up."""
        return -(-(self.input * input + self.output * output) // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class FairDemand:
    """A request's work in the queue of a base model, and that queue's virtual time."""

    queue: str
    work: int
    rates: Rates
    virtual_time: int


@dataclass(frozen=True, slots=True)
class FairStart:
    """The start of one request in a queue: its priority, as vLLM takes the smallest first."""

    queue: str
    tag: int


class Finishes:
    """The finish of each tenant in each queue, for one process. The least recent are forgotten."""

    def __init__(self) -> None:
        self._finishes: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._finishes)

    def take(self, tenant: str, demand: FairDemand) -> FairStart:
        """The start of the tenant's next request, which then moves its finish."""
        key = (tenant, demand.queue)
        start = max(demand.virtual_time, self._finishes.get(key, 0))
        self._finishes[key] = min(MAX_TAG, start + demand.work)
        self._finishes.move_to_end(key)
        if len(self._finishes) > _MAX_FINISHES:
            self._finishes.popitem(last=False)
        return FairStart(demand.queue, start)

    def correct(self, tenant: str, demand: FairDemand, input: int, output: int) -> None:
        """The request of `demand` really had these tokens."""
        key = (tenant, demand.queue)
        if key in self._finishes:
            more = demand.rates.work(input, output) - demand.work
            corrected = self._finishes[key] + more
            self._finishes[key] = min(MAX_TAG, max(0, corrected))


class VirtualTimes:
    """The virtual time of each queue, as one replica knows it.

    It is the largest start of a request that ended. Besides, it moves by a floor in each second, so
    that a stream of new tenants cannot hold an older one back for ever.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._times: dict[str, tuple[int, float]] = {}

    def of(self, queue: str, floor: int) -> int:
        """The virtual time now. `floor` is the least that it moves, in tokens a second."""
        now_s = self._now_s()
        time, at_s = self._times.get(queue, (0, now_s))
        units_per_s = floor * UNITS_PER_TOKEN
        moved = int((now_s - at_s) * units_per_s)
        if moved:  # the rest of a unit is for the next time
            at_s += moved / units_per_s
        self._times[queue] = min(MAX_TAG, time + moved), at_s
        return self._times[queue][0]

    def started(self, start: FairStart) -> None:
        """A request with this start has been served."""
        time, at_s = self._times.get(start.queue, (0, self._now_s()))
        if start.tag > time:
            self._times[start.queue] = start.tag, at_s

    def learn(self, others: Mapping[str, int]) -> None:
        """Takes over the later times of other replicas."""
        for queue, tag in others.items():
            self.started(FairStart(queue, tag))

    def known(self) -> dict[str, int]:
        """All that is known here, by queue."""
        return {queue: time for queue, (time, _) in self._times.items()}
