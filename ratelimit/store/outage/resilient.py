"""A shared store that may go away: in an outage each limit's `on_outage` decides, at once.

A breaker keeps requests from waiting for a store that is down. Only the background task
(`tend`) probes it, counts the replicas, and sends it what it has missed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import OnOutage
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.outage.breaker import Breaker
from ratelimit.store.outage.debt import ASK_AGAIN_S, Debt
from ratelimit.store.outage.replicas import ANNOUNCE_EVERY_S, LIFE_S, LiveReplicas
from ratelimit.store.outage.shares import Shares, on_outage, shared_part
from ratelimit.store.protocol import (
    PeekQuery,
    Reservation,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Spent,
    StoreAwayError,
    StoreError,
)
from ratelimit.store.shared import Batch, Exchanged, SharedStore, Told

_PARALLEL = 64
_TEND_EVERY_S = 0.1
_CLOSE_WITHIN_S = 5.0

T = TypeVar("T")

log = logging.getLogger("headgate.ratelimit")


class ResilientStore:
    """See `Store`. An async context manager: inside it the background task runs.

    `replica` names this process among those that share the store. `replicas` is how many there
    are, until the store has been asked.
    """

    def __init__(
        self, store: SharedStore, replica: str, replicas: int, clock: Clock, metrics: Metrics
    ) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        self._metrics = metrics
        self._replicas = LiveReplicas(replicas, clock)
        self._breaker = Breaker(clock)
        self._shares = Shares()
        self._debt = Debt(
            clock, lambda word, n: metrics.of_store.outage_reconciled.labels(word).inc(n)
        )
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._error = ""
        self._away_since_s = self._accounted_s = self._announce_at_s = clock.monotonic_s()
        self._back_since_s = float("-inf")
        self._background = BackgroundTask("the store", self.tend, _TEND_EVERY_S, log)

    async def __aenter__(self) -> "ResilientStore":
        await self.tend()
        self._background.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.stop()
        await self.close()

    async def reserve(self, reservation: Reservation) -> Reserved:
        tenant, name = reservation.tenant, reservation.id
        if self._debt.has_settlement(tenant, name):
            return Reserved(decision=ReserveDecision.REPLAYED, degraded=True)
        if self._debt.is_admitted(tenant, name):
            return await self._shares.reserve(reservation, self._replicas.count)
        try:
            return await self._ask(lambda: self._store.reserve(reservation))
        except StoreError as error:
            return await self._decide(reservation, error)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        here = await self._shares.settle(reservation, tenant, spent, now_s)
        if self._debt.is_admitted(tenant, reservation):
            if here.outcome is SettleOutcome.SETTLED:
                self._debt.settle_admitted(tenant, reservation, spent)
            return here
        if self._debt.has_settlement(tenant, reservation):
            return Settled(SettleOutcome.DUPLICATE, {})
        try:
            settled = await self._ask(lambda: self._store.settle(reservation, tenant, spent, now_s))
        except StoreError as error:
            if not self._debt.add_settlement(tenant, reservation, spent):
                raise
            self._count_absorbed("settle", error)
            return Settled(SettleOutcome.DEFERRED, {})
        if settled.outcome is not SettleOutcome.UNKNOWN or not self._is_back_recently():
            return settled
        # The replica that admitted it in the outage may not have sent it to the store yet.
        kept = self._debt.add_settlement(tenant, reservation, spent)
        return Settled(SettleOutcome.DEFERRED, {}) if kept else settled

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        """Hits have no `on_outage`: in an outage, StoreAwayError at once."""
        return await self._ask(lambda: self._store.count(tenant, hits, now_s))

    async def peek(self, query: PeekQuery) -> Mapping[str, int]:
        return await self._ask(lambda: self._store.peek(query))

    @property
    def is_away(self) -> bool:
        """Whether there is an outage: the store is not asked."""
        return not self._breaker.is_closed

    async def exchange(
        self, replica: str, batches: Sequence[Batch], read: Collection[str]
    ) -> Exchanged:
        """See `SharedStore`. In an outage, StoreAwayError at once."""
        return await self._ask(lambda: self._store.exchange(replica, batches, read))

    async def exchange_times(self, times: Mapping[str, int]) -> Mapping[str, int]:
        """See `SharedStore`. In an outage, StoreAwayError at once."""
        return await self._ask(lambda: self._store.exchange_times(times))

    async def exchange_ids(self, ids: Sequence[str], place: str) -> Told:
        """See `SharedStore`. In an outage, StoreAwayError at once."""
        return await self._ask(lambda: self._store.exchange_ids(ids, place))

    async def withdraw(self, replica: str) -> None:
        """See `SharedStore`. In an outage, StoreAwayError at once."""
        await self._ask(lambda: self._store.withdraw(replica))

    async def ping(self) -> None:
        """Returns when the store itself can be used."""
        await self._ask(self._store.ping)

    async def close(self) -> None:
        """Sends the store what it can, withdraws this replica, then ends the connections."""
        if self._breaker.is_closed:
            try:
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await self._debt.reconcile(self._store, self._back_since_s)
                    await self._store.withdraw(self._replica)
            except (StoreError, TimeoutError) as error:
                log.warning("could not withdraw this replica from the store: %r", error)
        if self._debt:
            log.error(
                "reservations and settlements of the outage that never reached the store: %d",
                len(self._debt),
            )
        await self._store.close()

    async def tend(self) -> None:
        """One round of the background task: probes, or announces this replica, when it is time."""
        self._account()
        now_s = self._clock.monotonic_s()
        if self._breaker.take_probe():
            await self._probe()
        elif self._breaker.is_closed and now_s >= self._announce_at_s:
            try:
                await self._announce()
            except StoreError as error:
                self._failed(error, now_s)
                return
            self._breaker.answered()
            self._announce_at_s = now_s + ANNOUNCE_EVERY_S
            await self._debt.reconcile(self._store, self._back_since_s)

    async def _probe(self) -> None:
        back = False
        try:
            back = await self._is_back()
        finally:
            self._account()
            if back:
                self._breaker.probe_answered()
            else:
                self._breaker.probe_failed()
        if back:
            now_s = self._clock.monotonic_s()
            self._announce_at_s = now_s  # sends what was admitted meanwhile
            self._metrics.store_available.set(1)
            log.warning(
                "the store answers again after an outage of %.1f s", now_s - self._away_since_s
            )

    def _account(self) -> None:
        """Counts the time without the store, up to now."""
        now_s = self._clock.monotonic_s()
        if not self._breaker.is_closed:
            self._metrics.of_store.degraded_seconds.inc(now_s - self._accounted_s)
        self._accounted_s = now_s

    async def _is_back(self) -> bool:
        """Whether it answers, and has been sent everything that it has missed."""
        try:
            await self._announce()
            self._back_since_s = self._clock.monotonic_s()
            if not await self._debt.reconcile(self._store, self._back_since_s):
                await self._store.ping()
        except StoreError as error:
            self._error = str(error)
            self._replicas.lost()
            return False
        return True

    async def _announce(self) -> None:
        self._replicas.seen(await self._store.announce(self._replica, LIFE_S))

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Asks the store unless it is away: then raises StoreAwayError without waiting."""
        if self._breaker.is_closed:
            async with self._slots:  # outside of its deadline: this wait is ours
                if self._breaker.is_closed:
                    began_s = self._clock.monotonic_s()
                    try:
                        answer = await call()
                    except StoreError as error:
                        self._failed(error, began_s)
                        raise
                    self._breaker.answered()
                    self._metrics.of_store.seconds.observe(self._clock.monotonic_s() - began_s)
                    return answer
        raise StoreAwayError(f"the store is away: {self._error}")

    def _failed(self, error: StoreError, began_s: float) -> None:
        self._error = str(error)
        self._replicas.lost()
        now_s = self._clock.monotonic_s()
        self._announce_at_s = now_s  # to see soon whether this is an outage
        if self._breaker.failed(began_s):
            self._away_since_s = self._accounted_s = now_s
            self._metrics.store_available.set(0)
            log.warning("the store is away, limits do what their on_outage says: %s", error)

    async def _decide(self, reservation: Reservation, error: StoreError) -> Reserved:
        """The answer without the store. Raises `error` where the limits refuse without counting."""
        tried = not isinstance(error, StoreAwayError)
        policy = _policy(reservation)
        reserved: Reserved | None = None
        if policy is OnOutage.OPEN:
            not_counted = {asked.key: 0 for asked in reservation.asked}
            reserved = Reserved(
                decision=ReserveDecision.ADMITTED, used=not_counted, degraded=True, held=tried
            )
        elif policy is OnOutage.SHARE and not self._shares.is_full():
            reserved = await self._shares.reserve(reservation, self._replicas.count)
        admitted = reserved is not None and reserved.decision is ReserveDecision.ADMITTED
        self._metrics.outage_decisions.labels(policy, "admitted" if admitted else "refused").inc()
        if admitted and policy is OnOutage.SHARE:
            self._debt.add_admitted(shared_part(reservation))
        if tried and not admitted:  # the store may have reserved it nevertheless
            self._debt.add_settlement(reservation.tenant, reservation.id, Spent())
        if reserved is None:
            raise error
        self._count_absorbed("reserve", error)
        return reserved

    def _count_absorbed(self, operation: str, error: StoreError) -> None:
        """Counts a failure that our callers do not see. They count those that they see."""
        if not isinstance(error, StoreAwayError):
            self._metrics.store_errors.labels(operation).inc()

    def _is_back_recently(self) -> bool:
        return self._clock.monotonic_s() - self._back_since_s < ASK_AGAIN_S


def _policy(reservation: Reservation) -> OnOutage:
    """The strictest of its limits decides."""
    policies = {on_outage(asked) for asked in reservation.asked}
    for policy in (OnOutage.CLOSED, OnOutage.SHARE):
        if policy in policies:
            return policy
    return OnOutage.OPEN if policies else OnOutage.CLOSED
