"""Answers the calls of domains that stand in a configuration of envoyproxy/ratelimit."""

from collections.abc import Callable

from headgate.clock import Clock
from headgate.metrics import Metrics
from protos.gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.dropin.decide import (
    Domains,
    Status,
    claims_of,
    hits_of,
    scope_of,
    statuses_of,
)
from ratelimit.dropin.wire import decode, encode
from ratelimit.store.protocol import Counted, Store

_NONE = "-"


class DropIn:
    """Decides by the configuration that is in force at each call."""

    def __init__(
        self, store: Store, domains: Callable[[], Domains], clock: Clock, metrics: Metrics
    ) -> None:
        self._store = store
        self._domains = domains
        self._clock = clock
        self._metrics = metrics

    async def answer(self, message: RateLimitRequest) -> RateLimitResponse:
        """One call. Raises BadCallError, and StoreError: then nothing is known to be counted.

        A domain that no file configures has no limits.
        """
        descriptors = decode(message)
        now_s = self._clock.now_s()
        top = self._domains().get(message.domain)
        claims = (None,) * len(descriptors) if top is None else claims_of(top, descriptors, now_s)
        hits = hits_of(claims)
        counted = Counted(())
        if hits:
            counted = await self._store.count(scope_of(message.domain), hits, now_s)
        statuses = statuses_of(claims, counted)
        self._count(_NONE if top is None else message.domain, statuses)
        return encode(message, statuses, now_s)

    def _count(self, domain: str, statuses: tuple[Status, ...]) -> None:
        for status in statuses:
            labels = (domain, status.limit_id or _NONE, status.outcome.value)
            self._metrics.descriptors.labels(*labels).inc()
