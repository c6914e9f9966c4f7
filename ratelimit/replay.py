"""Who would have been refused? Recorded requests once more through the limiter, in their time.

Each asks at the time at which it asked, for the tokens that were held for it, and is settled at
the time at which it ended, with the tokens that it was charged.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush

from msgspec import Struct

from headgate.core.policy import CompiledPolicy
from headgate.core.settlement import Estimate, Usage
from ratelimit.limiter import Admitted, Limiter, Reason, Request
from ratelimit.store.memory import MemoryStore


class Used(Struct, frozen=True, array_like=True):
    """The tokens that a request was charged; `cached` are a part of the prompt's."""

    prompt: int
    cached: int
    completion: int


class Recorded(Struct, frozen=True, array_like=True):
    """One request that came as far as to the limits. Times are in seconds since the epoch.

    `estimate` was held, `estimate_prompt` of it for the prompt (None where that is not known);
    `used` was charged, None for one that was given back as a whole. One that was `refused` by a
    limit used nothing: should it pass now, its estimate stands for that.
    """

    start_s: float
    reservation: str
    end_s: float
    tenant: str
    user: str
    key: str
    model: str
    estimate: int
    estimate_prompt: int | None
    used: Used | None
    refused: bool

    @property
    def order(self) -> tuple[float, str]:
        """What sorts by time, and puts copies of one record beside each other."""
        return self.start_s, self.reservation


class Gone(StrEnum):
    """What a policy does not have of a recorded request: the door would refuse it now."""

    TENANT = "tenant"
    USER = "user"
    MODEL = "model"


@dataclass(slots=True)
class Row:
    """Requests of one user to one model. `by_limit` has who refused how many, by limit id."""

    requests: int = 0
    refused: int = 0
    refused_when_recorded: int = 0
    by_limit: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Replayed:
    """What became of all requests. `repeated` were copies of others and count nowhere else."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """By tenant, user and model."""
    gone: Counter[Gone] = field(default_factory=Counter)
    repeated: int = 0


class _RecordedClock:
    """Stands where the records are."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s


class Replay:
    """Runs requests, handed over in the order of `Recorded.order`, under one policy.

    It keeps no more than the requests that run at one time, and a row for each user and model.
    """

    def __init__(self, policy: CompiledPolicy) -> None:
        self.replayed = Replayed()
        self._policy = policy
        self._users = {(caller.tenant, caller.user) for caller in policy.keys.values()}
        self._clock = _RecordedClock()
        self._limiter = Limiter(MemoryStore(), lambda: policy, self._clock)
        self._running: list[tuple[float, str, Recorded]] = []
        self._last: tuple[float, str] | None = None

    async def run(self, requests: Iterable[Recorded]) -> None:
        """Replays them all."""
        for request in requests:
            await self._settle_until(request.start_s)
            self._clock.at_s = request.start_s
            if request.order == self._last:
                self.replayed.repeated += 1
            elif (gone := self._gone(request)) is not None:
                self.replayed.gone[gone] += 1
            else:
                await self._ask(request)
            self._last = request.order

    async def _ask(self, request: Recorded) -> None:
        answer = await self._limiter.reserve(
            Request(
                request.reservation,
                request.tenant,
                request.user,
                request.key,
                request.model,
                None,
                request.estimate,
                request.estimate_prompt,
            )
        )
        if not isinstance(answer, Admitted) and answer.reason is Reason.REPLAYED:
            self.replayed.repeated += 1
            return
        row = self.replayed.rows.setdefault((request.tenant, request.user, request.model), Row())
        row.requests += 1
        row.refused_when_recorded += request.refused
        if isinstance(answer, Admitted):
            heappush(self._running, (request.end_s, request.reservation, request))
            return
        row.refused += 1
        if answer.hit is not None:
            row.by_limit[answer.hit.id] += 1

    async def _settle_until(self, now_s: float) -> None:
        while self._running and self._running[0][0] <= now_s:
            end_s, reservation, request = heappop(self._running)
            self._clock.at_s = end_s
            estimate = Estimate(request.estimate, request.estimate_prompt or 0)
            await self._limiter.settle(reservation, request.tenant, _usage(request), estimate)

    def _gone(self, request: Recorded) -> Gone | None:
        tenant = self._policy.tenants.get(request.tenant)
        if tenant is None:
            return Gone.TENANT
        if (request.tenant, request.user) not in self._users:
            return Gone.USER
        return None if request.model in tenant.models else Gone.MODEL


def _usage(request: Recorded) -> Usage:
    """What settles to the tokens of the record.

    A whole answer without usage settles to the estimate, as output where its parts are not known.
    """
    used = request.used
    if request.refused:
        return Usage(status=200, complete=True)
    if used is None:
        return Usage()
    return Usage(
        status=200,
        prompt=used.prompt,
        cached=used.cached,
        completion=used.completion,
        complete=True,
    )
