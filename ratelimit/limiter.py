"""Is there budget left? Reserves for a request before it runs, settles what it really used.

No transport: the rate-limit service and the access log both call it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import ceil, inf

from headgate.core.apis import Api
from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy, Count, Limit, Per, Smooth, Windowed
from headgate.core.settlement import Charge, Estimate, Source, Usage, charge
from ratelimit.demand import Claim, Subject, claims_of, reservation_of
from ratelimit.smooth import Refill, drops_per_unit, remaining_units
from ratelimit.store.protocol import (
    Decision,
    Demand,
    Lease,
    Outcome,
    Reserved,
    SettleHeld,
    Spent,
    Store,
    StoreAwayError,
)

_OUTAGE_WAIT_S = 5.0
"""When to come back after a refusal that the store had no part in."""


@dataclass(frozen=True, slots=True)
class Request:
    """What asks to be let in. `tokens` is its estimate, `prompt_tokens` the prompt's part of it.

    `api` and `prompt_tokens` are None where they are not known.
    """

    reservation: str
    tenant: str
    user: str
    key: str
    model: str
    api: Api | None
    tokens: int
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one limit that can refuse: shadow limits are not shown to clients.

    `limit` and `remaining` of cost are in nanos. `resets_at_s` (since the epoch) is None for
    requests in flight; a smooth limit resets when all of it is left again.
    """

    rule: Limit
    remaining: int
    resets_at_s: float | None

    @property
    def id(self) -> str:
        return self.rule.id

    @property
    def count(self) -> Count:
        return self.rule.count

    @property
    def per(self) -> Per | None:
        """The window of `limit`; None for requests in flight and for a burst."""
        return self.rule.shape.per if isinstance(self.rule.shape, Windowed) else None

    @property
    def limit(self) -> int:
        """The most that can remain: of a smooth limit its burst."""
        return self.rule.capacity


@dataclass(frozen=True, slots=True)
class Admitted:
    """All limits had room and hold the request now.

    `exceeded` are the shadow limits that had none: they would have refused it. `held_by` goes with
    it to whoever settles it (`Reserved.held_by`).
    """

    left: tuple[Left, ...]
    exceeded: tuple[Limit, ...] = ()
    held_by: str = ""


class Reason(StrEnum):
    """Why a request was refused."""

    LIMIT = "limit"
    UNKNOWN_TENANT = "unknown_tenant"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is held. `hit` is the limit to wait for, None if it was no limit's doing.

    `needed` is what the request asked of that limit, in the limit's unit; None of a slot.
    """

    reason: Reason
    hit: Left | None
    retry_after_s: int
    left: tuple[Left, ...]
    needed: int | None = None


class _State(Enum):
    HELD = "held"  # by the store
    FREE = "free"  # meets no limit: the store knows nothing of it
    REFUSED = "refused"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class _Known:
    """What became of a reservation here; `left` by the counter's key."""

    tenant: str
    state: _State
    left: Mapping[str, Left]


class Limiter:
    """Decides by the policy that is in force at each call.

    It remembers the last `remembered` reservations that it decided: settling one for the
    second time, or one that was refused, asks the store nothing. Of one that it has forgotten
    the store is asked, and knows: the memory, about 1 KB each, only spares questions, most of
    which come within a second. `settle_held` is how the store settles what a replica holds,
    where it has such a thing.
    """

    def __init__(
        self,
        store: Store,
        policy: Callable[[], CompiledPolicy],
        clock: Clock,
        remembered: int = 16_384,
        settle_held: SettleHeld | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._remembered = remembered
        self._settle_held = settle_held
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._settling: dict[str, asyncio.Event] = {}

    async def reserve(self, request: Request) -> Admitted | Refused:
        """Holds the request in all limits that it meets, or in none. Raises StoreError.

        A tenant that the policy does not know is refused. One without limits is let in and
        the store is not asked.
        """
        now_s = self._clock.now_s()
        tenant = self._policy().tenants.get(request.tenant)
        if tenant is None:
            self._remember_unless_known(request, _State.REFUSED)
            return Refused(Reason.UNKNOWN_TENANT, None, 1, ())
        subject = Subject(request.tenant, request.user, request.key, request.model)
        claims = claims_of(tenant, subject, now_s)
        if not claims:
            self._remember_unless_known(request, _State.FREE)
            return Admitted(())
        reservation = reservation_of(
            request.reservation,
            request.tenant,
            claims,
            request.tokens,
            now_s,
            prompt_tokens=request.prompt_tokens,
        )
        try:
            reserved = await self._store.reserve(reservation)
        except StoreAwayError:
            self._remember_unless_known(request, _State.REFUSED)
            raise
        if reserved.decision is Decision.REPLAYED:
            return Refused(Reason.REPLAYED, None, 1, ())
        claims = _in_store_order(claims)
        left = _left_of_claims(claims, reserved, now_s)
        admitted = reserved.decision is Decision.ADMITTED
        held = _State.HELD if reserved.held else _State.FREE
        state = held if admitted else _State.REFUSED
        self._remember(request.reservation, _Known(request.tenant, state, left))
        if not admitted:
            hits = [
                _Hit(
                    left[claims[index].key],
                    _fits_at_s(
                        claims[index], reservation.asked[index], reserved.used[index], now_s
                    ),
                    _needed(claims[index], reservation.asked[index]),
                )
                for index in reserved.refused
            ]
            # A share of a limit ends with the outage, and nobody knows when that is.
            most_s = _OUTAGE_WAIT_S if reserved.degraded else inf
            return _refused(hits, left, now_s, most_s)
        exceeded = tuple(claims[index].limit for index in reserved.exceeded)
        return Admitted(tuple(left.values()), exceeded, reserved.held_by)

    async def settle(
        self, reservation: str, tenant: str, usage: Usage, estimate: Estimate, held_by: str = ""
    ) -> Source | Outcome:
        """Charges what a finished request used, once. Raises StoreError: then nothing is lost,
        settle again.

        Returns where the charged numbers come from or, when nothing changed, why: DUPLICATE,
        UNKNOWN (it was never admitted), DEFERRED (it is kept until the store is back) or FORWARDED
        (to the replica that holds it). Those are the words of headgate_settlements.

        The proxy's call and the access log's often meet: the later waits for the earlier one,
        which spares the store a question that has its answer already.
        """
        while (earlier := self._settling.get(reservation)) is not None:
            await earlier.wait()
        self._settling[reservation] = asyncio.Event()
        try:
            return await self._settle(reservation, tenant, usage, estimate, held_by)
        finally:
            self._settling.pop(reservation).set()

    async def _settle(
        self, reservation: str, tenant: str, usage: Usage, estimate: Estimate, held_by: str
    ) -> Source | Outcome:
        cost = charge(usage, estimate)
        known = self._known.get(reservation)
        if known is None or known.tenant != tenant:
            known = _Known(tenant, _State.HELD, {})
        if known.state is _State.SETTLED:
            return Outcome.DUPLICATE
        if known.state is _State.REFUSED:
            return Outcome.UNKNOWN
        left = known.left
        outcome = Outcome.SETTLED
        if known.state is _State.HELD:
            now_s = self._clock.now_s()
            what = (reservation, tenant, _spent(cost), now_s)
            if held_by and self._settle_held is not None:
                settled = await self._settle_held(held_by, *what)
            else:
                settled = await self._store.settle(*what)
            outcome = settled.outcome
            left = _left_after(left, settled.used, now_s)
        if outcome is Outcome.UNKNOWN:  # its reserve call may still be on the way: not remembered
            return outcome
        self._remember(reservation, _Known(tenant, _State.SETTLED, left))
        return cost.source if outcome is Outcome.SETTLED else outcome

    def left_of(self, reservation: str) -> tuple[Left, ...]:
        """What was left after this process last heard of a reservation; empty if it did not."""
        known = self._known.get(reservation)
        return () if known is None else tuple(known.left.values())

    def _remember(self, reservation: str, known: _Known) -> None:
        self._known[reservation] = known
        self._known.move_to_end(reservation)
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)

    def _remember_unless_known(self, request: Request, state: _State) -> None:
        """A repeated call after a change of the policy must not hide what the store holds."""
        if request.reservation not in self._known:
            self._remember(request.reservation, _Known(request.tenant, state, {}))


def _spent(cost: Charge) -> Spent:
    return Spent(cost.requests, cost.prompt - cost.cached, cost.cached, cost.completion)


def _in_store_order(claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    """Counters first, then leases, as `Reserved` lists them."""
    return tuple(sorted(claims, key=lambda claim: claim.is_slot))


def _left_of_claims(claims: tuple[Claim, ...], reserved: Reserved, now_s: float) -> dict[str, Left]:
    """What is left of each limit that can refuse; `claims` in the store's order."""
    pairs = zip(claims, reserved.used, strict=True)
    return {
        claim.key: _left(claim.limit, used, claim.window.end_s if claim.window else None, now_s)
        for claim, used in pairs
        if not claim.limit.shadow
    }


def _left_after(left: Mapping[str, Left], used: Mapping[str, int], now_s: float) -> dict[str, Left]:
    return {
        key: _left(item.rule, used[key], item.resets_at_s, now_s) if key in used else item
        for key, item in left.items()
    }


def _left(rule: Limit, used: int, resets_at_s: float | None, now_s: float) -> Left:
    if isinstance(rule.shape, Smooth):
        resets_at_s = Refill(rule, used, now_s).full_at_s()
    return Left(rule, remaining_units(rule, used), resets_at_s)


@dataclass(frozen=True, slots=True)
class _Hit:
    """A limit that had no room: when it will have it, and what was asked of it."""

    left: Left
    fits_at_s: float
    needed: int | None


def _needed(claim: Claim, asked: Demand | Lease) -> int | None:
    """The amount that was asked, in the limit's unit; None of a slot. A bucket counts in drops."""
    if isinstance(asked, Lease):
        return None
    if isinstance(claim.limit.shape, Smooth):
        return asked.amount // drops_per_unit(claim.limit)
    return asked.amount


def _fits_at_s(claim: Claim, asked: Demand | Lease, used: int, now_s: float) -> float:
    """When what was refused may be had: a slot at any time."""
    if claim.window is not None:
        return claim.window.end_s
    if isinstance(asked, Lease):
        return now_s
    return Refill(claim.limit, used, now_s).fits_at_s(asked.amount)


def _refused(
    hits: Sequence[_Hit], left: Mapping[str, Left], now_s: float, most_s: float
) -> Refused:
    """Names the limit that has room last: to come back before that is in vain.

    But nobody is told to wait for longer than `most_s`.
    """
    hit = max(hits, key=lambda hit: hit.fits_at_s)
    wait_s = min(most_s, round(hit.fits_at_s - now_s, 6))  # the difference is some 0.2 us off
    wait = max(1, ceil(wait_s))
    return Refused(Reason.LIMIT, hit.left, wait, tuple(left.values()), hit.needed)
