"""The debt of an outage: everything that the store has missed. It learns that exactly once.

Everything is sent under the reservation's own id, for which the store does each thing only
once. So nothing changes twice, even if an answer was lost or a call arrives late.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from headgate.core.clock import Clock
from ratelimit.store.concurrency import groups
from ratelimit.store.protocol import (
    MAX_COUNT,
    TOKENS,
    Reservation,
    SettleOutcome,
    Spent,
    Store,
    StoreError,
    TenantKey,
)

MAX_SETTLEMENTS = 100_000
"""How many settlements are kept: some 40 MB."""

ASK_AGAIN_S = 30.0
"""How long an unknown reservation may still come from the replica that admitted it."""

_GIVE_UP_AFTER = 64
"""So many failures mean that the store is away again; a few may concern single keys."""


@dataclass(slots=True)
class _AdmittedHere:
    reservation: Reservation
    settled: Spent | None = None
    in_store: bool = False


@dataclass(frozen=True, slots=True)
class _KeptSettlement:
    spent: Spent
    since_s: float


class Debt:
    """Reservations admitted from a share, and settlements of any reservation, by tenant and id.

    `count` gets what the store has learned: a word of headgate_outage_reconciled, and a number.
    """

    def __init__(self, clock: Clock, count: Callable[[str, int], None]) -> None:
        self._clock = clock
        self._count = count
        self._admitted: dict[TenantKey, _AdmittedHere] = {}
        self._settlements: dict[TenantKey, _KeptSettlement] = {}

    def __len__(self) -> int:
        return len(self._admitted) + len(self._settlements)

    def add_admitted(self, reservation: Reservation) -> None:
        """Keeps a reservation until the store has taken it over."""
        key = (reservation.tenant, reservation.id)
        self._admitted.setdefault(key, _AdmittedHere(reservation))

    def is_admitted(self, tenant: str, reservation: str) -> bool:
        return (tenant, reservation) in self._admitted

    def settle_admitted(self, tenant: str, reservation: str, spent: Spent) -> None:
        """Keeps the real use of a reservation that is admitted here."""
        self._admitted[tenant, reservation].settled = spent

    def add_settlement(self, tenant: str, reservation: str, spent: Spent) -> bool:
        """Keeps a settlement, the first one of an id. False when there is no room.

        Settlements that charge nothing get half of the room: most are of refused requests.
        """
        room = MAX_SETTLEMENTS // 2 if spent == Spent() else MAX_SETTLEMENTS
        key = (tenant, reservation)
        if key not in self._settlements:
            if len(self._settlements) >= room:
                return False
            self._settlements[key] = _KeptSettlement(spent, self._clock.monotonic_s())
        return True

    def has_settlement(self, tenant: str, reservation: str) -> bool:
        return (tenant, reservation) in self._settlements

    async def reconcile(self, store: Store, back_since_s: float) -> bool:
        """Sends the store everything, and forgets what it has taken.

        False if something failed: that is kept for the next time.
        """
        failures = await self._each([*self._admitted], self._send_admitted, store)
        if failures < _GIVE_UP_AFTER:

            async def settle(key: TenantKey, store: Store) -> None:
                await self._send_settlement(key, store, back_since_s)

            failures += await self._each([*self._settlements], settle, store)
        return not failures

    async def _each(
        self,
        keys: Sequence[TenantKey],
        send: Callable[[TenantKey, Store], Awaitable[None]],
        store: Store,
    ) -> int:
        """Sends some at a time; returns how many failed."""
        failures = 0
        for group in groups(keys):
            results = await asyncio.gather(
                *(send(key, store) for key in group), return_exceptions=True
            )
            for result in results:
                if isinstance(result, StoreError):
                    failures += 1
                elif result is not None:
                    raise result
            if failures >= _GIVE_UP_AFTER:
                break
        return failures

    async def _send_admitted(self, key: TenantKey, store: Store) -> None:
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

    async def _send_settlement(self, key: TenantKey, store: Store, back_since_s: float) -> None:
        kept = self._settlements[key]
        settled = await store.settle(key[1], key[0], kept.spent, self._clock.now_s())
        if settled.outcome is SettleOutcome.UNKNOWN:
            waits_s = self._clock.monotonic_s() - max(kept.since_s, back_since_s)
            if waits_s < ASK_AGAIN_S:
                return
        del self._settlements[key]
        if settled.outcome is SettleOutcome.SETTLED:
            self._count("settlements", 1)


def _still_due(reservation: Reservation, runs: bool, now_s: float) -> Reservation | None:
    """The part that still counts: windows that have not ended and, if it runs, its slots.

    It is reserved as of its own time, so that a bucket has drained since. If other replicas have
    filled the bucket at a later time, the drain in between does not apply to this amount.
    """
    passed_s = now_s - reservation.now_s
    demands = tuple(
        replace(demand, limit=MAX_COUNT)
        for demand in reservation.demands
        if demand.expires_at_s > now_s
    )
    leases = tuple(
        replace(lease, limit=MAX_COUNT)
        for lease in reservation.leases
        if runs and lease.lease_s > passed_s
    )
    if reservation.hold_s <= passed_s or not (demands or leases):
        return None
    return replace(reservation, demands=demands, leases=leases)


def _tokens(admitted: _AdmittedHere) -> int:
    """The tokens that it used or, where that is not known, held."""
    if admitted.settled is not None:
        return admitted.settled.tokens
    tokens = 0
    for demand in admitted.reservation.demands:
        unit = demand.weights.input // TOKENS.input
        if unit and demand.weights == TOKENS.times(unit):
            tokens = max(tokens, demand.amount // unit)
    return tokens
