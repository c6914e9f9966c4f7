"""The reservations that one replica holds in its slices, or has settled there. Pure."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from ratelimit.fair.tags import FairDemand, FairStart, Finishes
from ratelimit.store.protocol import (
    SETTLED_KEPT_S,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Spent,
    TenantKey,
)
from ratelimit.store.slices.pool import Draw, undo

MAX_HELD = 100_000
"""How many reservations a process holds in slices; the store holds those above that."""

WITH_REST = "+"
"""At the end of `Reserved.held_by`: the store holds another part of the reservation."""

_MAX_SETTLED = 262_144
_MAX_DELEGATED = 65_536


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation that this replica holds until `until_s`.

    With `has_rest` the store holds another part of it. With `fair`, its work counts here.
    """

    draws: tuple[Draw, ...]
    until_s: float
    has_rest: bool
    fair: FairDemand | None = None
    start: FairStart | None = None


class Holds:
    """The reservations that a replica knows, by tenant and id: held, settled or delegated."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._finishes = Finishes()
        self._holds: OrderedDict[TenantKey, Hold] = OrderedDict()
        self._settled: OrderedDict[TenantKey, float] = OrderedDict()
        self._delegated: OrderedDict[TenantKey, None] = OrderedDict()

    def __len__(self) -> int:
        """How many reservations are held."""
        return len(self._holds)

    @property
    def is_full(self) -> bool:
        return len(self._holds) >= MAX_HELD

    def decision(self, tenant: str, reservation: str, now_s: float) -> ReserveDecision | None:
        """The state of a reservation: ADMITTED and held, REPLAYED where settled, or None."""
        if self.of(tenant, reservation, now_s) is not None:
            return ReserveDecision.ADMITTED
        is_settled = now_s < self._settled.get((tenant, reservation), 0)
        return ReserveDecision.REPLAYED if is_settled else None

    def of(self, tenant: str, reservation: str, now_s: float) -> Hold | None:
        """The reservation, while it is held."""
        return self._live((tenant, reservation), now_s)

    def held_by(self, hold: Hold) -> str:
        """The `Reserved.held_by` of a reservation that is held here."""
        return self._replica + (WITH_REST if hold.has_rest else "")

    def take_start(self, tenant: str, fair: FairDemand) -> FairStart:
        """The start in a queue, by this replica's own count of the tenant's work."""
        return self._finishes.take(tenant, fair)

    def add(self, tenant: str, reservation: str, hold: Hold) -> None:
        """Its amounts have been drawn: it can be settled."""
        self._holds[tenant, reservation] = hold

    def settle(self, tenant: str, reservation: str, spent: Spent, now_s: float) -> Settled:
        """Replaces what is held with what was used. `used` covers the counters of slices."""
        key = (tenant, reservation)
        hold = self._live(key, now_s)
        if hold is None:
            is_settled = now_s < self._settled.get(key, 0)
            return Settled(SettleOutcome.DUPLICATE if is_settled else SettleOutcome.UNKNOWN, {})
        for draw in hold.draws:
            draw.spend(draw.demand.weights.amount(spent))
        if hold.fair is not None:
            self._finishes.correct(tenant, hold.fair, spent.input, spent.output)
        del self._holds[key]
        self._settled[key] = now_s + SETTLED_KEPT_S
        self._settled.move_to_end(key)
        if len(self._settled) > _MAX_SETTLED:
            self._settled.popitem(last=False)
        used = {draw.demand.key: draw.pool.used for draw in hold.draws}
        return Settled(SettleOutcome.SETTLED, used, hold.start)

    def delegate(self, tenant: str, reservation: str) -> None:
        """The store was asked to hold all of it: no slice may hold it too."""
        self._delegated[tenant, reservation] = None
        if len(self._delegated) > _MAX_DELEGATED:
            self._delegated.popitem(last=False)

    def is_delegated(self, tenant: str, reservation: str) -> bool:
        return (tenant, reservation) in self._delegated

    def release(self, tenant: str, reservation: str) -> None:
        """Holds it no longer: the store holds it instead."""
        undo(self._holds.pop((tenant, reservation)).draws)

    def all(self) -> Sequence[tuple[TenantKey, Hold]]:
        """Each reservation that is held, by tenant and id."""
        return [*self._holds.items()]

    def clean(self, now_s: float) -> None:
        """Forgets settled ids after a while; amounts that were held for too long stay charged.

        It begins with the oldest reservation, and stops at one that may still be settled.
        """
        while self._settled and next(iter(self._settled.values())) <= now_s:
            self._settled.popitem(last=False)
        while self._holds and self._live(next(iter(self._holds)), now_s) is None:
            pass

    def _live(self, key: TenantKey, now_s: float) -> Hold | None:
        hold = self._holds.get(key)
        if hold is not None and now_s >= hold.until_s:
            for draw in self._holds.pop(key).draws:
                draw.spend(draw.demand.amount)
            return None
        return hold
