"""Replays recorded requests through the limiter: which would another policy refuse?

Each asks at its recorded time for the tokens that were held for it. It is settled at the time
at which it ended, with the tokens that it was charged.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush

from msgspec import Struct

from headgate.core.apis import Api
from headgate.core.key_ring import UnscopedKeys, is_run_time
from headgate.core.policy import CompiledPolicy
from headgate.core.settlement import Estimate, Usage
from ratelimit.answers import Admitted, Reason, ReserveRequest
from ratelimit.demand import tokens_per_second
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore


class Used(Struct, frozen=True, array_like=True):
    """The charge of a request: `cached` are a part of the prompt, `seconds` are of audio."""

    prompt: int
    cached: int
    completion: int
    seconds: int | None = None


class Recorded(Struct, frozen=True, array_like=True):
    """One request that reached the limits. Times are in seconds since the epoch.

    `estimate` was held, `estimate_prompt` of it for the prompt (None where that is not known).
    `used` was charged; None if the whole request was given back. If a limit `refused` it, it used
    nothing: should it pass now, it is charged its estimate.
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
    api: Api | None = None

    @property
    def order(self) -> tuple[float, str]:
        """The key that sorts by time, and puts copies of a record beside each other."""
        return self.start_s, self.reservation


class Gone(StrEnum):
    """A part of a recorded request that the policy no longer has: the request would be denied."""

    TENANT = "tenant"
    USER = "user"
    MODEL = "model"


@dataclass(slots=True)
class ReplayRow:
    """Requests of one user to one model. `by_limit` counts the refusals by limit id."""

    requests: int = 0
    refused: int = 0
    refused_when_recorded: int = 0
    by_limit: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Replayed:
    """The results of all requests. `repeated` were copies of others and count nowhere else."""

    rows: dict[tuple[str, str, str], ReplayRow] = field(default_factory=dict)
    """By tenant, user and model."""
    gone: Counter[Gone] = field(default_factory=Counter)
    repeated: int = 0


class _RecordedClock:
    """Shows the time of the records."""

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
        self._limiter = Limiter(MemoryStore(), lambda: policy, self._clock, keys=UnscopedKeys())
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
            ReserveRequest(
                reservation=request.reservation,
                tenant=request.tenant,
                user=request.user,
                key=request.key,
                model=request.model,
                api=request.api,
                tokens=request.estimate,
                prompt_tokens=request.estimate_prompt,
            )
        )
        if not isinstance(answer, Admitted) and answer.reason is Reason.REPLAYED:
            self.replayed.repeated += 1
            return
        row = self.replayed.rows.setdefault(
            (request.tenant, request.user, request.model), ReplayRow()
        )
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
            per_second = tokens_per_second(self._policy, request.api)
            estimate = Estimate(request.estimate, request.estimate_prompt or 0, per_second)
            await self._limiter.settle(reservation, request.tenant, _usage(request), estimate)

    def _gone(self, request: Recorded) -> Gone | None:
        tenant = self._policy.tenants.get(request.tenant)
        if tenant is None:
            return Gone.TENANT
        if (request.tenant, request.user) not in self._users and not is_run_time(request.key):
            return Gone.USER
        return None if request.model in tenant.usable else Gone.MODEL


def _usage(request: Recorded) -> Usage:
    """The usage that settles to the tokens of the record.

    A complete answer without usage settles to the estimate, as output where its parts are not
    known.
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
        seconds=used.seconds,
        complete=True,
    )
