"""The store of one process. A method never awaits in the middle, which makes it one atomic step."""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from msgspec import Struct, field

from ratelimit.fair.tags import FairDemand, FairStart, Finishes
from ratelimit.store.buckets import Buckets
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.protocol import (
    MAX_COUNT,
    SETTLED_KEPT_S,
    Demand,
    Lease,
    PeekQuery,
    Reservation,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Spent,
    TenantKey,
    to_ms,
)

_CLEANED_PER_CALL = 64
"""More than a call can add, so that cleaning keeps up and no call pays for all the others."""


class _Leases:
    """The slots in use under one key, by reservation id."""

    def __init__(self) -> None:
        self._ends_s: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []

    def add(self, holder: str, end_s: float) -> None:
        self._ends_s[holder] = end_s
        heappush(self._queue, (end_s, holder))

    def end(self, holder: str) -> bool:
        """Frees the holder's slot; returns whether others remain."""
        self._ends_s.pop(holder, None)
        if len(self._queue) > 2 * len(self._ends_s) + 16:
            self._queue = [(end_s, holder) for holder, end_s in self._ends_s.items()]
            heapify(self._queue)
        return bool(self._ends_s)

    def active(self, now_s: float) -> int:
        """How many have not ended; forgets the others."""
        while self._queue and self._queue[0][0] <= now_s:
            end_s, holder = heappop(self._queue)
            if self._ends_s.get(holder) == end_s:
                del self._ends_s[holder]
        return len(self._ends_s)


class _ReservationRecord(Struct, kw_only=True, gc=False):
    """A reservation: held, or settled and remembered for a while.

    `filled_ms` says when each of its buckets was filled, by its own time.
    """

    until_s: float
    demands: tuple[Demand, ...] = ()
    leases: tuple[Lease, ...] = ()
    settled: bool = False
    filled_ms: dict[str, int] = field(default_factory=dict)
    fair: FairDemand | None = None
    start: FairStart | None = None

    @property
    def tag(self) -> int | None:
        return None if self.start is None else self.start.tag


class MemoryStore:
    """See `Store`. Everything is lost when the process ends."""

    def __init__(self) -> None:
        self._counters: dict[TenantKey, int] = {}
        self._buckets = Buckets()
        self._leases: dict[TenantKey, _Leases] = {}
        self._finishes = Finishes()
        self._records: dict[TenantKey, _ReservationRecord] = {}
        self._expiring_counters: list[tuple[float, TenantKey]] = []
        self._expiring_records: list[tuple[float, TenantKey]] = []

    async def reserve(self, reservation: Reservation) -> Reserved:
        self._clean(reservation.now_s)
        key = (reservation.tenant, reservation.id)
        record = self._live_record(key, reservation.now_s)
        if record is not None and record.settled:
            return Reserved(decision=ReserveDecision.REPLAYED)
        used = self._used(reservation)
        if record is not None:
            return Reserved(decision=ReserveDecision.ADMITTED, used=used, start=record.tag)
        refused, exceeded = _lacking(reservation, used)
        if refused:
            return Reserved(
                decision=ReserveDecision.REFUSED, used=used, refused=refused, exceeded=exceeded
            )
        record = self._grant(reservation, key)
        for demand in reservation.demands:
            used[demand.key] = min(MAX_COUNT, used[demand.key] + demand.amount)
        for lease in reservation.leases:
            used[lease.key] += 1
        return Reserved(
            decision=ReserveDecision.ADMITTED,
            used=used,
            exceeded=exceeded,
            start=record.tag,
        )

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        self._clean(now_s)
        key = (tenant, reservation)
        record = self._live_record(key, now_s)
        if record is None:
            return Settled(SettleOutcome.UNKNOWN, {})
        if record.settled:
            return Settled(SettleOutcome.DUPLICATE, {})
        used: dict[str, int] = {}
        for demand in record.demands:
            counter, actual = (tenant, demand.key), demand.weights.amount(spent)
            if demand.drain:
                filled_ms = record.filled_ms[demand.key]
                used[demand.key] = self._buckets.settle(
                    counter, demand, filled_ms, actual, to_ms(now_s)
                )
            elif counter in self._counters:
                count = self._counters[counter] + actual - demand.amount
                self._counters[counter] = used[demand.key] = min(MAX_COUNT, max(0, count))
        if record.leases:
            self._end_leases(key, record)
            for lease in record.leases:
                used[lease.key] = self._active((tenant, lease.key), now_s)
        if record.fair is not None:
            self._finishes.correct(tenant, record.fair, spent.input, spent.output)
        self._put(key, _ReservationRecord(until_s=now_s + SETTLED_KEPT_S, settled=True))
        return Settled(SettleOutcome.SETTLED, used, record.start)

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        self._clean(now_s)
        before = {hit.key: self._counters.get((tenant, hit.key), 0) for hit in hits}
        used, refused = _added(before, hits)
        if not refused:
            self._write(tenant, hits, used)
            return CountedHits(used)
        if hits[refused[0]].quota:
            quotas = [hit for hit in hits if hit.quota]
            self._write(tenant, quotas, _added(before, quotas)[0])
        return CountedHits(tuple(before[hit.key] for hit in hits), refused)

    def _write(self, tenant: str, hits: Sequence[Hit], used: Sequence[int]) -> None:
        for hit, count in zip(hits, used, strict=True):
            if count or (tenant, hit.key) in self._counters:
                self._set((tenant, hit.key), count, hit.expires_at_s)

    async def peek(self, query: PeekQuery) -> Mapping[str, int]:
        tenant, now_s, drain = query.tenant, query.now_s, query.drains.get
        used = {key: self._count((tenant, key), drain(key, 0), now_s) for key in query.counters}
        for key in query.leases:
            used[key] = self._active((tenant, key), now_s)
        return used

    def remembered(self) -> int:
        """How many reservations it keeps, held and settled ones."""
        return len(self._records)

    async def ping(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to end."""

    def _used(self, reservation: Reservation) -> dict[str, int]:
        tenant, now_s = reservation.tenant, reservation.now_s
        used = {}
        for demand in reservation.demands:
            key, drain = (tenant, demand.key), demand.drain
            count = self._count(key, drain, now_s) if drain else self._counters.get(key, 0)
            used[demand.key] = count
        for lease in reservation.leases:
            used[lease.key] = self._active((tenant, lease.key), now_s)
        return used

    def _count(self, key: TenantKey, drain: int, now_s: float) -> int:
        """The use of a counter, which is a bucket if it drains."""
        if drain:
            return self._buckets.level(key, drain, to_ms(now_s)).amount
        return self._counters.get(key, 0)

    def _grant(self, reservation: Reservation, key: TenantKey) -> _ReservationRecord:
        filled_ms, now_ms = {}, to_ms(reservation.now_s)
        for demand in reservation.demands:
            counter = (reservation.tenant, demand.key)
            if demand.drain:
                filled_ms[demand.key] = self._buckets.fill(counter, demand, now_ms)
                continue
            count = self._counters.get(counter, 0) + demand.amount
            self._set(counter, min(MAX_COUNT, count), demand.expires_at_s)
        for lease in reservation.leases:
            slots = self._leases.setdefault((reservation.tenant, lease.key), _Leases())
            slots.add(reservation.id, reservation.now_s + lease.lease_s)
        fair = reservation.fair
        record = _ReservationRecord(
            until_s=reservation.now_s + reservation.hold_s,
            demands=reservation.demands,
            leases=reservation.leases,
            filled_ms=filled_ms,
            fair=fair,
            start=None if fair is None else self._finishes.take(reservation.tenant, fair),
        )
        self._put(key, record)
        return record

    def _set(self, counter: TenantKey, count: int, expires_at_s: float) -> None:
        if counter not in self._counters:
            heappush(self._expiring_counters, (expires_at_s, counter))
        self._counters[counter] = count

    def _put(self, key: TenantKey, record: _ReservationRecord) -> None:
        self._records[key] = record
        heappush(self._expiring_records, (record.until_s, key))
        if len(self._expiring_records) > 2 * len(self._records) + 16:
            # Each settlement leaves an entry that would stay for as long as it could be held.
            self._expiring_records = [(kept.until_s, key) for key, kept in self._records.items()]
            heapify(self._expiring_records)

    def _live_record(self, key: TenantKey, now_s: float) -> _ReservationRecord | None:
        record = self._records.get(key)
        return record if record is not None and now_s < record.until_s else None

    def _active(self, key: TenantKey, now_s: float) -> int:
        slots = self._leases.get(key)
        return 0 if slots is None else slots.active(now_s)

    def _end_leases(self, key: TenantKey, record: _ReservationRecord) -> None:
        tenant, holder = key
        for lease in record.leases:
            slots = self._leases.get((tenant, lease.key))
            if slots is not None and not slots.end(holder):
                del self._leases[tenant, lease.key]

    def _clean(self, now_s: float) -> None:
        """Forgets some of what has expired."""
        counters, records = self._expiring_counters, self._expiring_records
        for _ in range(_CLEANED_PER_CALL):
            if not counters or counters[0][0] > now_s:
                break
            del self._counters[heappop(counters)[1]]
        self._buckets.clean(to_ms(now_s), _CLEANED_PER_CALL)
        for _ in range(_CLEANED_PER_CALL):
            if not records or records[0][0] > now_s:
                break
            until_s, key = heappop(records)
            record = self._records.get(key)
            if record is not None and record.until_s == until_s:
                self._end_leases(key, record)
                del self._records[key]


def _lacking(
    reservation: Reservation, used: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of demands and leases without enough room: those enforced, then the others."""
    refused: list[str] = []
    exceeded: list[str] = []
    for demand in reservation.demands:
        if used[demand.key] + demand.amount > demand.limit:
            (refused if demand.enforced else exceeded).append(demand.key)
    for lease in reservation.leases:
        if used[lease.key] >= lease.limit:
            (refused if lease.enforced else exceeded).append(lease.key)
    return tuple(refused), tuple(exceeded)


def _added(
    before: Mapping[str, int], hits: Sequence[Hit]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The count after each hit, and the indexes of the hits that refuse the call."""
    counts, used = dict(before), []
    refused: list[int] = []
    full: list[int] = []
    for index, hit in enumerate(hits):
        count = counts[hit.key]
        if hit.limit is not None and hit.amount >= 0 and count + max(1, hit.amount) > hit.limit:
            (full if hit.quota else refused).append(index)
        if hit.quota or index not in refused:
            counts[hit.key] = min(MAX_COUNT, max(0, count + hit.amount))
        used.append(counts[hit.key])
    if len(full) == sum(hit.quota for hit in hits):
        refused = refused or full
    return tuple(used), tuple(refused)
