"""A shared store that may go away: each limit's `on_outage` then decides, at once.

A breaker keeps requests from waiting for a store that is down. Only the background task
(`tend`) probes it, counts the replicas and gives it what it has missed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import OnOutage
from ratelimit.store.outage.breaker import Breaker
from ratelimit.store.outage.debt import ASK_AGAIN_S, Owed
from ratelimit.store.outage.replicas import ANNOUNCE_EVERY_S, LIFE_S, LiveReplicas
from ratelimit.store.outage.shares import Shares, on_outage, shared_part
from ratelimit.store.protocol import (
    Counted,
    Decision,
    Exchanged,
    Hit,
    Letter,
    Outcome,
    Peek,
    Reservation,
    Reserved,
    Settled,
    SharedStore,
    Spent,
    StoreAwayError,
    StoreError,
)

_PARALLEL = 64
_TEND_EVERY_S = 0.1
_CLOSE_WITHIN_S = 5.0

T = TypeVar("T")

log = logging.getLogger("headgate.ratelimit")


class ResilientStore:
    """See `Store`. An async context manager: inside it the background task runs.

    `replica` names this process among those that share the store; `replicas` is how many
    there are, as long as the store has not been asked.
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
        self._owed = Owed(clock, lambda what, n: metrics.outage_reconciled.labels(what).inc(n))
        self._turns = asyncio.Semaphore(_PARALLEL)
        self._error = ""
        self._away_since_s = self._accounted_s = self._announce_at_s = clock.monotonic_s()
        self._back_since_s = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ResilientStore":
        await self.tend()
        self._task = asyncio.create_task(self._tend_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.close()

    async def reserve(self, reservation: Reservation) -> Reserved:
        tenant, name = reservation.tenant, reservation.id
        if self._owed.has_settlement(tenant, name):
            return Reserved(decision=Decision.REPLAYED, degraded=True)
        if self._owed.is_admitted(tenant, name):
            return await self._shares.reserve(reservation, self._replicas.count)
        try:
            return await self._ask(lambda: self._store.reserve(reservation))
        except StoreError as error:
            return await self._decide(reservation, error)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        here = await self._shares.settle(reservation, tenant, spent, now_s)
        if self._owed.is_admitted(tenant, reservation):
            if here.outcome is Outcome.SETTLED:
                self._owed.settle_admitted(tenant, reservation, spent)
            return here
        if self._owed.has_settlement(tenant, reservation):
            return Settled(Outcome.DUPLICATE, {})
        try:
            settled = await self._ask(lambda: self._store.settle(reservation, tenant, spent, now_s))
        except StoreError as error:
            if not self._owed.add_settlement(tenant, reservation, spent):
                raise
            self._count_absorbed("settle", error)
            return Settled(Outcome.DEFERRED, {})
        if settled.outcome is not Outcome.UNKNOWN or not self._is_back_since_short():
            return settled
        # The replica that admitted it may not have told the store yet.
        kept = self._owed.add_settlement(tenant, reservation, spent)
        return Settled(Outcome.DEFERRED, {}) if kept else settled

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> Counted:
        """Hits have no `on_outage`: while the store is away, StoreAwayError at once."""
        return await self._ask(lambda: self._store.count(tenant, hits, now_s))

    async def peek(self, peek: Peek) -> Mapping[str, int]:
        return await self._ask(lambda: self._store.peek(peek))

    @property
    def is_away(self) -> bool:
        """Whether the store is not asked at the moment."""
        return not self._breaker.is_closed

    async def exchange(
        self, replica: str, letters: Sequence[Letter], read: Collection[str]
    ) -> Exchanged:
        """See `SharedStore`. While the store is away, StoreAwayError at once."""
        return await self._ask(lambda: self._store.exchange(replica, letters, read))

    async def withdraw(self, replica: str) -> None:
        """See `SharedStore`. While the store is away, StoreAwayError at once."""
        await self._ask(lambda: self._store.withdraw(replica))

    async def ping(self) -> None:
        """Returns when the store itself can be used."""
        await self._ask(self._store.ping)

    async def close(self) -> None:
        """Gives the store what it can, withdraws this replica, ends the connections."""
        if self._breaker.is_closed:
            try:
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await self._owed.give(self._store, self._back_since_s)
                    await self._store.withdraw(self._replica)
            except (StoreError, TimeoutError) as error:
                log.warning("could not take leave of the store: %r", error)
        if self._owed:
            log.error("%d reservations and settlements never reached the store", len(self._owed))
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
                self._failed(error)
                return
            self._breaker.answered()
            self._announce_at_s = now_s + ANNOUNCE_EVERY_S
            await self._owed.give(self._store, self._back_since_s)

    async def _tend_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TEND_EVERY_S)
            try:
                await self.tend()
            except Exception:  # without it nobody would ever see the store come back
                log.exception("the background task of the store failed")

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
            self._announce_at_s = now_s  # what was admitted while giving is still owed
            self._metrics.store_available.set(1)
            log.warning("the store answers again after %.1f s", now_s - self._away_since_s)

    def _account(self) -> None:
        """Counts the time without the store, up to now."""
        now_s = self._clock.monotonic_s()
        if not self._breaker.is_closed:
            self._metrics.store_degraded_seconds.inc(now_s - self._accounted_s)
        self._accounted_s = now_s

    async def _is_back(self) -> bool:
        """Whether it answers, and has heard of all that was admitted without it."""
        try:
            await self._announce()
            self._back_since_s = self._clock.monotonic_s()
            if not await self._owed.give(self._store, self._back_since_s):
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
            async with self._turns:  # outside of the deadline: waiting here is not its fault
                if self._breaker.is_closed:
                    try:
                        answer = await call()
                    except StoreError as error:
                        self._failed(error)
                        raise
                    self._breaker.answered()
                    return answer
        raise StoreAwayError(f"the store is away: {self._error}")

    def _failed(self, error: StoreError) -> None:
        self._error = str(error)
        self._replicas.lost()
        now_s = self._clock.monotonic_s()
        self._announce_at_s = now_s  # to see soon whether it is away, and to tell what it missed
        if self._breaker.failed():
            self._away_since_s = self._accounted_s = now_s
            self._metrics.store_available.set(0)
            log.warning("the store is away, limits do what their on_outage says: %s", error)

    async def _decide(self, reservation: Reservation, error: StoreError) -> Reserved:
        """The answer without the store. Raises `error` where no limit may answer for it."""
        tried = not isinstance(error, StoreAwayError)
        policy = _policy(reservation)
        reserved: Reserved | None = None
        if policy is OnOutage.OPEN:
            not_counted = {asked.key: 0 for asked in reservation.asked}
            reserved = Reserved(
                decision=Decision.ADMITTED, used=not_counted, degraded=True, held=tried
            )
        elif policy is OnOutage.SHARE and not self._shares.is_full():
            reserved = await self._shares.reserve(reservation, self._replicas.count)
        admitted = reserved is not None and reserved.decision is Decision.ADMITTED
        self._metrics.outage_decisions.labels(policy, "admitted" if admitted else "refused").inc()
        if admitted and policy is OnOutage.SHARE:
            self._owed.add_admitted(shared_part(reservation))
        if tried and not admitted:  # the store may hold it all the same
            self._owed.add_settlement(reservation.tenant, reservation.id, Spent())
        if reserved is None:
            raise error
        self._count_absorbed("reserve", error)
        return reserved

    def _count_absorbed(self, operation: str, error: StoreError) -> None:
        """Failures that our callers hear of are counted by them."""
        if not isinstance(error, StoreAwayError):
            self._metrics.store_errors.labels(operation).inc()

    def _is_back_since_short(self) -> bool:
        return self._clock.monotonic_s() - self._back_since_s < ASK_AGAIN_S


def _policy(reservation: Reservation) -> OnOutage:
    """The strictest one of its limits decides."""
    policies = {on_outage(one) for one in reservation.asked}
    for policy in (OnOutage.CLOSED, OnOutage.SHARE):
        if policy in policies:
            return policy
    return OnOutage.OPEN if policies else OnOutage.CLOSED
