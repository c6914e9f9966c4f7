"""Answers the calls of the domains in a configuration of envoyproxy/ratelimit."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from ratelimit.descriptors.decide import (
    RateClaim,
    Status,
    claims_of,
    hits_of,
    lost_charge,
    near_limit_hits,
    scope_of,
    statuses_of,
)
from ratelimit.descriptors.tree import Domains
from ratelimit.descriptors.wire import decode, encode
from ratelimit.store.hits import CountedHits
from ratelimit.store.protocol import Store

log = logging.getLogger("headgate.ratelimit")

NEAR_LIMIT_RATIO = 0.8
"""The default of envoyproxy/ratelimit."""

_NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorOptions:
    """How calls are answered: those settings of envoyproxy/ratelimit that Headgate has.

    A refused call counts nowhere; with `counts_refused`, it counts everywhere. Only then is a
    charge at the end of a stream never lost, as nothing can refuse such a charge any more.
    """

    counts_refused: bool = False
    has_metadata: bool = False
    """Whether answers carry metadata for later filters (RESPONSE_DYNAMIC_METADATA)."""
    near_limit_ratio: float = NEAR_LIMIT_RATIO
    """From this part of a limit on, hits are counted as near it (NEAR_LIMIT_RATIO)."""


class DescriptorLimits:
    """Decides each call by the configuration that is in force at that time."""

    def __init__(
        self,
        store: Store,
        domains: Callable[[], Domains],
        clock: Clock,
        metrics: Metrics,
        options: DescriptorOptions | None = None,
    ) -> None:
        self._store = store
        self._domains = domains
        self._clock = clock
        self._metrics = metrics
        self._options = options or DescriptorOptions()
        self._warned_domains: set[str] = set()

    async def answer(self, message: RateLimitRequest) -> RateLimitResponse:
        """Answers one call. A domain that no file configures has no limits.

        Raises BadCallError, and StoreError: then it is unknown whether anything was counted.
        """
        descriptors = decode(message)
        now_s = self._clock.now_s()
        top = self._domains().get(message.domain)
        claims: tuple[RateClaim | None, ...] = (None,) * len(descriptors)
        if top is not None:
            claims = claims_of(top, descriptors, now_s, self._options.counts_refused)
        hits = hits_of(claims)
        counted = CountedHits(())
        if hits:
            counted = await self._store.count(scope_of(message.domain), hits, now_s)
        statuses = statuses_of(claims, counted)
        self._count(_NONE if top is None else message.domain, statuses)
        if counted.refused:
            self._warn_of_lost_charge(message.domain, statuses)
        return encode(message, statuses, now_s, self._options.has_metadata)

    def _count(self, domain: str, statuses: tuple[Status, ...]) -> None:
        for status in statuses:
            labels = (domain, status.limit_id or _NONE, status.outcome.value)
            self._metrics.descriptors.labels(*labels).inc()
            if not status.hits:
                continue
            self._metrics.descriptor_hits.labels(*labels).inc(status.hits)
            near = near_limit_hits(status, self._options.near_limit_ratio)
            if near:
                self._metrics.descriptor_near_limit_hits.labels(*labels[:2]).inc(near)

    def _warn_of_lost_charge(self, domain: str, statuses: tuple[Status, ...]) -> None:
        """Logs, once for each domain, a refusal that looks like a charge after an answer."""
        status = lost_charge(statuses)
        if status is None or domain in self._warned_domains:
            return
        self._warned_domains.add(domain)
        log.warning(
            "domain %s: %d hits were refused and not counted, as the limit %s had %d remaining."
            " If Envoy charges at the end of a stream, set --ratelimit-count-refused:"
            " otherwise such charges are lost.",
            domain,
            status.hits,
            status.limit_id,
            status.remaining_before,
        )
