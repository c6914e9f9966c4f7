"""What the store has missed while it was away, and how it gets to know, exactly once.

Everything is given under the reservation's own id, for which the store does each thing only
once: an answer that was lost, or a call that arrives late, changes nothing twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from headgate.core.clock import Clock
from ratelimit.store.protocol import (
    MAX_COUNT,
    TOKENS,
    Outcome,
    Reservation,
    Spent,
    Store,
    StoreError,
)

MAX_SETTLEMENTS = 100_000
"""Settlements that are kept: some 40 MB."""

ASK_AGAIN_S = 30.0
"""How long an unknown reservation may still come from the replica that admitted it."""

_AT_ONCE = 16
_GIVE_UP_AFTER = 64
"""So many failures mean that the store is away again; a few may be about single keys."""

_Key = tuple[str, str]
"""The tenant, then the reservation's id."""


@dataclass(slots=True)
class _Admitted:
    reservation: Reservation
    settled: Spent | None = None
    in_store: bool = False


@dataclass(frozen=True, slots=True)
class _Settlement:
    spent: Spent
    since_s: float


class Owed:
    """Reservations admitted from a share, and settlements of all reservations, by their id.

    `count` is told what the store was given: a word of headgate_outage_reconciled, a number.
    """

    def __init__(self, clock: Clock, count: Callable[[str, int], None]) -> None:
        self._clock = clock
        self._count = count
        self._admitted: dict[_Key, _Admitted] = {}
        self._settlements: dict[_Key, _Settlement] = {}

    def __len__(self) -> int:
        return len(self._admitted) + len(self._settlements)

    def add_admitted(self, reservation: Reservation) -> None:
        """The store has to take this up. It is known here until the store has."""
        key = (reservation.tenant, reservation.id)
        self._admitted.setdefault(key, _Admitted(reservation))

    def is_admitted(self, tenant: str, reservation: str) -> bool:
        return (tenant, reservation) in self._admitted

    def settle_admitted(self, tenant: str, reservation: str, spent: Spent) -> None:
        """Of one that is admitted here: what it really used."""
        self._admitted[tenant, reservation].settled = spent

    def add_settlement(self, tenant: str, reservation: str, spent: Spent) -> bool:
        """Keeps a settlement, the first one of an id. False when there is no room.

        Those that charge nothing get half of the room: most are of requests that were refused.
        """
        room = MAX_SETTLEMENTS // 2 if spent == Spent() else MAX_SETTLEMENTS
        key = (tenant, reservation)
        if key not in self._settlements:
            if len(self._settlements) >= room:
                return False
            self._settlements[key] = _Settlement(spent, self._clock.monotonic_s())
        return True

    def has_settlement(self, tenant: str, reservation: str) -> bool:
        return (tenant, reservation) in self._settlements

    async def give(self, store: Store, back_since_s: float) -> bool:
        """Tells the store all of it. What it has taken is forgotten here.

        False if something failed: it is kept, to be given again.
        """
        failures = await self._give_each([*self._admitted], self._give_admitted, store)
        if failures < _GIVE_UP_AFTER:

            async def settle(key: _Key, store: Store) -> None:
                await self._give_settlement(key, store, back_since_s)

            failures += await self._give_each([*self._settlements], settle, store)
        return not failures

    async def _give_each(
        self, keys: Sequence[_Key], give: Callable[[_Key, Store], Awaitable[None]], store: Store
    ) -> int:
        failures = 0
        for start in range(0, len(keys), _AT_ONCE):
            results = await asyncio.gather(
                *(give(key, store) for key in keys[start : start + _AT_ONCE]),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, StoreError):
                    failures += 1
                elif result is not None:
                    raise result
            if failures >= _GIVE_UP_AFTER:
                break
        return failures

    async def _give_admitted(self, key: _Key, store: Store) -> None:
        """Reserves it there above any limit, then settles it if it has been settled here.

        Never reserves again after the first answer: the store forgets settled ids in time.
        """
        admitted = self._admitted[key]
        now_s = self._clock.now_s()
        if not admitted.in_store:
            due = _still_due(admitted.reservation, admitted.settled is None, now_s)
            if due is not None:
                await store.reserve(due)
            self._count("expired" if due is None else "reservations", 1)
            admitted.in_store = True
        if admitted.settled is not None:  # maybe while the store was reserving
            await store.settle(key[1], key[0], admitted.settled, now_s)
        del self._admitted[key]
        self._count("tokens", _tokens(admitted))

    async def _give_settlement(self, key: _Key, store: Store, back_since_s: float) -> None:
        kept = self._settlements[key]
        settled = await store.settle(key[1], key[0], kept.spent, self._clock.now_s())
        if settled.outcome is Outcome.UNKNOWN:
            waits_s = self._clock.monotonic_s() - max(kept.since_s, back_since_s)
            if waits_s < ASK_AGAIN_S:
                return
        del self._settlements[key]
        if settled.outcome is Outcome.SETTLED:
            self._count("settlements", 1)


def _still_due(reservation: Reservation, runs: bool, now_s: float) -> Reservation | None:
    """What still counts of it: windows that have not ended and, if it runs, its slots.

    It is still reserved as of its own time, so that a bucket has drained since. Of buckets that
    others have filled at a later time, what drained in between counts as if it had not.
    """
    passed_s = now_s - reservation.now_s
    demands = tuple(
        replace(one, limit=MAX_COUNT) for one in reservation.demands if one.expires_at_s > now_s
    )
    leases = tuple(
        replace(one, limit=MAX_COUNT)
        for one in reservation.leases
        if runs and one.lease_s > passed_s
    )
    if reservation.hold_s <= passed_s or not (demands or leases):
        return None
    return replace(reservation, demands=demands, leases=leases)


def _tokens(admitted: _Admitted) -> int:
    if admitted.settled is not None:
        return admitted.settled.tokens
    found = 0
    for one in admitted.reservation.demands:
        unit = one.weights.input // TOKENS.input
        if unit and one.weights == TOKENS.times(unit):
            found = max(found, one.amount // unit)
    return found
