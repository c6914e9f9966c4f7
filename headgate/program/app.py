"""The composition root: builds the four hooks and joins them.

The rooms know each other only here. The access log settles through the limiter and
teaches ext_proc's estimator; each hook reads the policy that is in force at the call.
"""

import socket
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from accesslog.console import ConsoleSink
from accesslog.service import AccessLogService
from accesslog.sink import Sink
from extauthz.failures import FailureLimit
from extauthz.identify import Verifier
from extauthz.service import Authorization
from extproc.estimate import Estimator
from extproc.own_keys import no_keys
from extproc.pins.memory import MemoryPins
from extproc.pins.redis import RedisPins
from extproc.service import ExternalProcessor
from extproc.versions import Pins
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.core.prices import Price
from headgate.core.rpc import Method
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.identity.follow import KeyFollower
from headgate.identity.issuers.fetch import HttpFetch
from headgate.identity.issuers.source import IssuerKeys
from headgate.identity.own_keys import OwnKeys
from headgate.identity.ring import MemoryRing
from headgate.identity.snapshot import Snapshot
from headgate.identity.store import KeyStore
from headgate.identity.tokens.revocations import NOTHING_REVOKED
from headgate.identity.verifier import TokenVerifier
from headgate.lean.service import LeanCheck
from headgate.program.settings import DatabaseSettings, ServiceSettings, StoreSettings
from ratelimit.descriptors.service import DescriptorLimits, DescriptorOptions
from ratelimit.descriptors.tree import Domains
from ratelimit.fair.tags import VirtualTimes
from ratelimit.limiter import Limiter
from ratelimit.peek import PeekLimits
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from ratelimit.store.slices.sliced import SlicedStore
from ratelimit.store.virtual_times import VirtualTimeExchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The built hooks, callable without a server."""

    authorization: Authorization
    lean: LeanCheck
    processor: ExternalProcessor
    rate_limit: RateLimitService
    access_log: AccessLogService

    def methods(self) -> tuple[Method, ...]:
        """The gRPC methods of all four hooks. Check answers on both paths."""
        return (
            *self.lean.methods(),
            *self.processor.methods(),
            *self.rate_limit.methods(),
            *self.access_log.methods(),
        )


@asynccontextmanager
async def running_store(
    settings: StoreSettings,
    clock: Clock,
    metrics: Metrics,
    virtual_times: VirtualTimes | None = None,
) -> AsyncIterator[Store]:
    """The store named on the command line. It starts without its Redis too.

    Through a Redis, replicas exchange the `virtual_times` of vLLM's queues.

    Raises OperatorError for a URL that is none.
    """
    if settings.url == "memory":
        if settings.password_file is not None:
            raise OperatorError("--store-password-file goes with a --store that is a Redis")
        yield MemoryStore()
        return
    shared = RedisStore.from_url(settings.url, settings.deadline_s, settings.password_file)
    replica = uuid.uuid4().hex
    resilient = ResilientStore(shared, replica, settings.replicas, clock, metrics)
    times = virtual_times or VirtualTimes(clock.monotonic_s)
    async with (
        resilient,
        SlicedStore(resilient, replica, clock, metrics, times) as store,
        VirtualTimeExchange(resilient.exchange_times, times),
    ):
        yield store


@asynccontextmanager
async def running_pins(settings: StoreSettings, clock: Clock) -> AsyncIterator[Pins]:
    """Where versions are remembered: beside the limits. Raises OperatorError for a bad URL."""
    if settings.url == "memory":
        yield MemoryPins(clock)
        return
    pins = RedisPins(settings.url, settings.deadline_s, clock, settings.password_file)
    try:
        yield pins
    finally:
        await pins.close()


@asynccontextmanager
async def running_keys(
    settings: DatabaseSettings, clock: Clock, metrics: Metrics
) -> AsyncIterator[MemoryRing | None]:
    """The keys and users of the database, followed there. None without a database.

    It starts without its database too. Raises OperatorError for a bad URL or password file.
    """
    if settings.url is None:
        yield None
        return
    address = database_address(settings.url, settings.password_file)
    ring = MemoryRing(clock, settings.keys_stale_s)
    snapshot = None
    if settings.keys_snapshot is not None:
        snapshot = Snapshot(settings.keys_snapshot, clock)
    async with KeyFollower(lambda: connected(address), ring, snapshot, clock, metrics):
        yield ring


def key_store(settings: DatabaseSettings, clock: Clock) -> KeyStore | None:
    """Where keys are issued; None without a database. Raises OperatorError for a bad URL."""
    if settings.url is None:
        return None
    return KeyStore(
        partial(connected, database_address(settings.url, settings.password_file)), clock
    )


@asynccontextmanager
async def running_verifier(
    policy: Callable[[], CompiledPolicy],
    clock: Clock,
    metrics: Metrics,
    ring: MemoryRing | None = None,
) -> AsyncIterator[TokenVerifier]:
    """The verifier of tokens, which keeps the keys of the policy's issuers fresh.

    Tokens that `ring` knows as revoked count no more.
    """
    async with (
        aclosing(HttpFetch()) as fetch,
        IssuerKeys(lambda: policy().issuers, fetch, clock, metrics) as keys,
    ):
        revocations = (lambda: NOTHING_REVOKED) if ring is None else ring.revocations
        yield TokenVerifier(keys, clock, metrics, revocations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The running parts that the hooks share.

    `policy` and `domains` return the versions in force. Without `domains` no limits of
    envoyproxy/ratelimit are served.
    """

    policy: Callable[[], CompiledPolicy]
    store: Store
    pins: Pins
    clock: Clock
    metrics: Metrics
    verifier: Verifier
    domains: Callable[[], Domains] | None = None
    admits: Callable[[], bool] = lambda: True
    """Whether new requests may come in; False once one box ends."""
    keys: KeyRing = NO_KEYS
    """The keys that were issued at run time; none without a database."""
    virtual_times: VirtualTimes | None = None
    """Those of vLLM's queues, which the store exchanges."""
    key_store: KeyStore | None = None
    """Where users make their own keys; None without a database."""


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
    others = _descriptor_limits(settings, parts)
    processor = _processor(parts, estimator)
    rate_limit = RateLimitService(limiter, parts.metrics, parts.clock, others)
    authorization = _authorization(parts, failures)
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
        access_log=_access_log(parts, limiter, estimator, (sinks, shown), failures),
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


def _processor(parts: Parts, estimator: Estimator) -> ExternalProcessor:
    peek = PeekLimits(parts.store, parts.clock, parts.metrics)
    store = parts.key_store
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
) -> AccessLogService:
    def price_of(name: str, version: str | None, at_s: float | None) -> Price | None:
        model = parts.policy().models.get(name)
        now_s = parts.clock.now_s() if at_s is None else at_s
        return None if model is None else model.prices.at(now_s, version)

    def within_limit(address: str) -> bool:
        return failures.count(address, parts.clock.monotonic_s()) is None

    return AccessLogService(
        settle=limiter.settle,
        known_outcome=limiter.known_outcome,
        learn=estimator.learn,
        price_of=price_of,
        sinks=outputs[0],
        console=outputs[1],
        policy=parts.policy,
        metrics=parts.metrics,
        within_limit=within_limit,
        clock=parts.clock,
        replica=socket.gethostname(),
    )


def new_reservation_id() -> str:
    """A reservation id that nobody can guess."""
    return uuid.uuid4().hex
