"""Answers the calls of the domains in a configuration of envoyproxy/ratelimit."""

from collections.abc import Callable

from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from ratelimit.descriptors.decide import (
    RateClaim,
    Status,
    claims_of,
    hits_of,
    scope_of,
    statuses_of,
)
from ratelimit.descriptors.tree import Domains
from ratelimit.descriptors.wire import decode, encode
from ratelimit.store.protocol import CountedHits, Store

_NONE = "-"


class DescriptorLimits:
    """Decides each call by the configuration that is in force at that time.

    A refused call counts nowhere; with `counts_refused`, it counts everywhere. Only then is a
    charge at the end of a stream never lost, as nothing can refuse such a charge any more.
    """

    def __init__(
        self,
        store: Store,
        domains: Callable[[], Domains],
        clock: Clock,
        metrics: Metrics,
        counts_refused: bool = False,
    ) -> None:
        self._store = store
        self._domains = domains
        self._clock = clock
        self._metrics = metrics
        self._counts_refused = counts_refused

    async def answer(self, message: RateLimitRequest) -> RateLimitResponse:
        """Answers one call. A domain that no file configures has no limits.

        Raises BadCallError, and StoreError: then it is unknown whether anything was counted.
        """
        descriptors = decode(message)
        now_s = self._clock.now_s()
        top = self._domains().get(message.domain)
        claims: tuple[RateClaim | None, ...] = (None,) * len(descriptors)
        if top is not None:
            claims = claims_of(top, descriptors, now_s, self._counts_refused)
        hits = hits_of(claims)
        counted = CountedHits(())
        if hits:
            counted = await self._store.count(scope_of(message.domain), hits, now_s)
        statuses = statuses_of(claims, counted)
        self._count(_NONE if top is None else message.domain, statuses)
        return encode(message, statuses, now_s)

    def _count(self, domain: str, statuses: tuple[Status, ...]) -> None:
        for status in statuses:
            labels = (domain, status.limit_id or _NONE, status.outcome.value)
            self._metrics.descriptors.labels(*labels).inc()
