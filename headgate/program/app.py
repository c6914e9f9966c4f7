"""The composition root: builds the four hooks and joins them on one gRPC server.

The rooms know each other only here. The access log settles through the limiter and
teaches ext_proc's estimator; each hook reads the policy that is in force at the call.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from accesslog.console import ConsoleSink
from accesslog.service import AccessLogService
from accesslog.sink import Sink
from extauthz.failures import FailureLimit
from extauthz.service import Authorization
from extproc.estimate import Estimator
from extproc.pins.memory import MemoryPins
from extproc.pins.redis import RedisPins
from extproc.service import ExternalProcessor
from extproc.versions import Pins
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy, Prices
from headgate.dataplane.box import MAX_BODY_LIMIT_BYTES
from headgate.program.ending import Ending
from headgate.program.settings import ServiceSettings, StoreSettings
from ratelimit.descriptors.service import DescriptorLimits
from ratelimit.descriptors.tree import Domains
from ratelimit.limiter import Limiter
from ratelimit.peek import PeekLimits
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from ratelimit.store.slices.sliced import SlicedStore

_MESSAGE_ROOM_BYTES = 2**20
_SERVER_OPTIONS = [
    # A mesh has one connection for each proxy worker and thousands of short streams on it.
    ("grpc.max_concurrent_streams", 2**31 - 1),
    # A body to rewrite comes in one message and goes back in another, with its headers.
    ("grpc.max_receive_message_length", MAX_BODY_LIMIT_BYTES + _MESSAGE_ROOM_BYTES),
    ("grpc.max_send_message_length", MAX_BODY_LIMIT_BYTES + _MESSAGE_ROOM_BYTES),
    # Two programs on one port would each get half of the calls, in silence.
    ("grpc.so_reuseport", 0),
]

_STOP_GRACE_S = 1.0
"""For calls in flight when the server stops. The access log's streams never end by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The built hooks, callable without a server."""

    authorization: Authorization
    processor: ExternalProcessor
    rate_limit: RateLimitService
    access_log: AccessLogService

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The gRPC handlers of all four hooks."""
        return (
            self.authorization.handler(),
            self.processor.handler(),
            self.rate_limit.handler(),
            self.access_log.handler(),
        )


@asynccontextmanager
async def running_store(
    settings: StoreSettings, clock: Clock, metrics: Metrics
) -> AsyncIterator[Store]:
    """The store named on the command line. It starts without its Redis too.

    Raises OperatorError for a URL that is none.
    """
    if settings.url == "memory":
        yield MemoryStore()
        return
    shared = RedisStore.from_url(settings.url, settings.deadline_s)
    replica = uuid.uuid4().hex
    resilient = ResilientStore(shared, replica, settings.replicas, clock, metrics)
    async with resilient, SlicedStore(resilient, replica, clock, metrics) as store:
        yield store


@asynccontextmanager
async def running_pins(settings: StoreSettings, clock: Clock) -> AsyncIterator[Pins]:
    """Where versions are remembered: beside the limits. Raises OperatorError for a bad URL."""
    if settings.url == "memory":
        yield MemoryPins(clock)
        return
    pins = RedisPins(settings.url, settings.deadline_s, clock)
    try:
        yield pins
    finally:
        await pins.close()


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
    domains: Callable[[], Domains] | None = None
    admits: Callable[[], bool] = lambda: True
    """Whether new requests may come in; False once one box ends."""


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
    if console is not None:
        sinks = (*sinks, ConsoleSink(console, limiter.limits_of))
    others = _descriptor_limits(settings, parts)
    return Hooks(
        authorization=_authorization(settings, parts),
        processor=_processor(parts, estimator),
        rate_limit=RateLimitService(limiter, parts.metrics, parts.clock, others),
        access_log=_access_log(parts, limiter, estimator, sinks),
    )


def _authorization(settings: ServiceSettings, parts: Parts) -> Authorization:
    failures = FailureLimit(settings.auth_failures_per_minute)
    return Authorization(parts.policy, failures, parts.clock, parts.metrics, parts.admits)


def _limiter(parts: Parts) -> Limiter:
    # Only a store that replicas share has anything held by one of them.
    settle_held = parts.store.settle_held if isinstance(parts.store, SlicedStore) else None
    return Limiter(parts.store, parts.policy, parts.clock, settle_held=settle_held)


def _processor(parts: Parts, estimator: Estimator) -> ExternalProcessor:
    return ExternalProcessor(
        policy=parts.policy,
        estimator=estimator,
        new_id=new_reservation_id,
        limits_of=PeekLimits(parts.store, parts.clock, parts.metrics),
        pins=parts.pins,
        metrics=parts.metrics,
        clock=parts.clock,
    )


def _descriptor_limits(settings: ServiceSettings, parts: Parts) -> DescriptorLimits | None:
    if parts.domains is None:
        return None
    counts_refused = settings.ratelimit_count_refused
    return DescriptorLimits(parts.store, parts.domains, parts.clock, parts.metrics, counts_refused)


def _access_log(
    parts: Parts, limiter: Limiter, estimator: Estimator, sinks: Sequence[Sink]
) -> AccessLogService:
    def prices_of(name: str) -> Prices | None:
        model = parts.policy().models.get(name)
        return None if model is None else model.prices

    return AccessLogService(
        settle=limiter.settle,
        learn=estimator.learn,
        prices_of=prices_of,
        sinks=sinks,
        policy=parts.policy,
        metrics=parts.metrics,
    )


def new_reservation_id() -> str:
    """A reservation id that nobody can guess."""
    return uuid.uuid4().hex


class HookServer:
    """The gRPC server of the hooks, with the standard health service."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers(hooks.handlers())
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str) -> None:
        """Listens on `host:port` or `unix:PATH`. Raises OperatorError when it is taken."""
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OperatorError(
                f"cannot listen on {address} for hooks: taken, not allowed, or no address;"
                " gRPC says which in the line above"
            ) from error
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, how: Ending) -> None:
        """Reports NOT_SERVING, goes on serving while a proxy has requests to end, then stops.

        A proxy keeps its access log stream open for as long as it may need the hooks.
        """
        await self._health.enter_graceful_shutdown()
        await how.wait_while(lambda: self._hooks.access_log.open_streams > 0)
        await self._server.stop(_STOP_GRACE_S)
