"""The composition root: builds the four hooks and joins them.

The rooms know each other only here. The access log settles through the limiter and
teaches ext_proc's estimator; each hook reads the policy that is in force at the call.
"""

import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accesslog.calls import not_placed, not_told
from accesslog.console import ConsoleSink
from accesslog.service import SETTLES_AT_ONCE, AccessLogService
from accesslog.sink import Sink
from extauthz.failures import FailureLimit
from extauthz.service import Authorization
from extproc.affinity import no_places
from extproc.cache.serving import CachedAnswers
from extproc.estimate import Estimator
from extproc.failover import stays
from extproc.own_keys import no_keys
from extproc.service import ExternalProcessor
from headgate.adapters.uses import EndedUses
from headgate.core.adapters import counted_as
from headgate.core.prices import Price
from headgate.core.rpc import Method
from headgate.identity.own_keys import OwnKeys
from headgate.lean.service import LeanCheck
from headgate.program.parts import Parts
from headgate.program.settings import ServiceSettings
from ratelimit.descriptors.service import DescriptorLimits, DescriptorOptions
from ratelimit.hits import HitLimits
from ratelimit.limiter import Limiter
from ratelimit.peek import PeekLimits
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.store.slices.sliced import SlicedStore
from ratelimit.unanswered import Unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The built hooks, callable without a server."""

    authorization: Authorization
    lean: LeanCheck
    processor: ExternalProcessor
    rate_limit: RateLimitService
    access_log: AccessLogService
    unanswered: Unanswered

    def methods(self) -> tuple[Method, ...]:
        """The gRPC methods of all four hooks. Check answers on both paths."""
        return (
            *self.lean.methods(),
            *self.processor.methods(),
            *self.rate_limit.methods(),
            *self.access_log.methods(),
        )


def build_hooks(
    settings: ServiceSettings,
    parts: Parts,
    sinks: Sequence[Sink] = (),
    console: Callable[[str], None] | None = None,
) -> Hooks:
    """Builds the hooks of `settings` from the running parts.

    Usage records go to `sinks`. With a `console`, a line for each request goes there too, with the
    remainder of its limits.
    """
    estimator = Estimator()
    limiter = _limiter(parts)
    shown = None if console is None else ConsoleSink(console, limiter.limits_of)
    # One address may meet each worker in turn: together they let the limit through.
    failures = FailureLimit(max(1, settings.auth_failures_per_minute // settings.workers))
    rate_limit = _rate_limit(settings, parts, limiter)
    processor = _processor(parts, estimator, rate_limit)
    authorization = _authorization(parts, failures)
    unanswered = _unanswered(parts, limiter)
    return Hooks(
        authorization=authorization,
        lean=LeanCheck(
            authorization=authorization,
            processor=processor,
            rate_limit=rate_limit,
            clock=parts.clock,
            metrics=parts.metrics,
        ),
        processor=processor,
        rate_limit=rate_limit,
        access_log=_access_log(
            parts, limiter, estimator, (sinks, shown), failures, unanswered=unanswered.add
        ),
        unanswered=unanswered,
    )


def _rate_limit(settings: ServiceSettings, parts: Parts, limiter: Limiter) -> RateLimitService:
    return RateLimitService(
        limiter,
        parts.metrics,
        parts.clock,
        _descriptor_limits(settings, parts),
        limited_as=lambda name: counted_as(name, parts.policy(), parts.adapters),
    )


def _authorization(parts: Parts, failures: FailureLimit) -> Authorization:
    return Authorization(
        parts.policy,
        parts.verifier,
        failures,
        parts.clock,
        parts.metrics,
        admits=parts.admits,
        keys=parts.keys,
    )


def _limiter(parts: Parts) -> Limiter:
    # Only a store that replicas share has anything held by one of them.
    settle_held = parts.store.settle_held if isinstance(parts.store, SlicedStore) else None
    return Limiter(
        parts.store,
        parts.policy,
        parts.clock,
        settle_held=settle_held,
        keys=parts.keys,
        virtual_times=parts.virtual_times,
    )


def _unanswered(parts: Parts, limiter: Limiter) -> Unanswered:
    exchange = parts.store.exchange_ids if isinstance(parts.store, SlicedStore) else None
    return Unanswered(limiter.give_back, exchange, parts.metrics)


def _processor(
    parts: Parts, estimator: Estimator, rate_limit: RateLimitService
) -> ExternalProcessor:
    peek = PeekLimits(parts.store, parts.clock, parts.metrics)
    store = parts.key_store
    hits = HitLimits(rate_limit, parts.clock)
    return ExternalProcessor(
        policy=parts.policy,
        estimator=estimator,
        new_id=new_reservation_id,
        limits_of=peek,
        usage_of=peek.usage,
        own_keys=no_keys if store is None else OwnKeys(store, parts.policy, parts.clock),
        pins=parts.pins,
        metrics=parts.metrics,
        clock=parts.clock,
        keys=parts.keys,
        places=no_places if parts.places is None else parts.places.hosts,
        moves=stays if parts.spares is None else parts.spares.move,
        adapters=parts.adapters,
        uses=parts.uses,
        cached=None if parts.answers is None else CachedAnswers(parts.answers, hits),
    )


def _descriptor_limits(settings: ServiceSettings, parts: Parts) -> DescriptorLimits | None:
    if parts.domains is None:
        return None
    options = DescriptorOptions(
        counts_refused=settings.ratelimit_count_refused,
        has_metadata=settings.ratelimit_metadata,
        near_limit_ratio=settings.ratelimit_near_limit_ratio,
    )
    return DescriptorLimits(parts.store, parts.domains, parts.clock, parts.metrics, options)


def _access_log(
    parts: Parts,
    limiter: Limiter,
    estimator: Estimator,
    outputs: tuple[Sequence[Sink], ConsoleSink | None],
    failures: FailureLimit,
    *,
    unanswered: Callable[[str], None],
) -> AccessLogService:
    def price_of(name: str, version: str | None, at_s: float | None) -> Price | None:
        policy = parts.policy()
        model = policy.models.get(counted_as(name, policy, parts.adapters))
        now_s = parts.clock.now_s() if at_s is None else at_s
        return None if model is None else model.prices.at(now_s, version)

    def within_limit(address: str) -> bool:
        return failures.count(address, parts.clock.monotonic_s()) is None

    return AccessLogService(
        settle=limiter.settle,
        known_outcome=limiter.known_outcome,
        unanswered=unanswered,
        learn=estimator.learn,
        price_of=price_of,
        sinks=(*outputs[0], EndedUses(parts.uses)),
        console=outputs[1],
        policy=parts.policy,
        metrics=parts.metrics,
        within_limit=within_limit,
        clock=parts.clock,
        replica=socket.gethostname(),
        ended=not_placed if parts.places is None else parts.places.ended,
        told=not_told if parts.spares is None else parts.spares.told,
        settles_at_once=1 if isinstance(parts.store, MemoryStore) else SETTLES_AT_ONCE,
    )


def new_reservation_id() -> str:
    """A reservation id that nobody can guess."""
    return uuid.uuid4().hex
