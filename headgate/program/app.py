"""The composition root: builds the four hooks and joins them on one gRPC server.

The rooms know each other only here. The access log settles through the limiter and
teaches ext_proc's estimator; everybody reads the policy that is in force right now.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from accesslog.service import AccessLogService
from accesslog.sink import Sink
from extauthz.failures import DEFAULT_PER_MINUTE, FailureLimit
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
from ratelimit.descriptors.service import DropIn
from ratelimit.descriptors.tree import Domains
from ratelimit.limiter import Limiter
from ratelimit.peek import PeekLimits
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import TIMEOUT_S, RedisStore
from ratelimit.store.slices.sliced import SlicedStore

_SERVER_OPTIONS = [
    # A mesh has one connection for each proxy worker and thousands of short streams on it.
    ("grpc.max_concurrent_streams", 2**31 - 1),
    # A rewritten body travels to us and back; the door refuses larger ones before that.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # Two programs on one port would each get half of the calls, in silence.
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True, slots=True)
class Hooks:
    """The built hooks, callable without a server, and the limiter that they share."""

    authorization: Authorization
    processor: ExternalProcessor
    rate_limit: RateLimitService
    access_log: AccessLogService
    limiter: Limiter

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The gRPC handlers of all four hooks."""
        return (
            self.authorization.handler(),
            self.processor.handler(),
            self.rate_limit.handler(),
            self.access_log.handler(),
        )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where limits are counted.

    `url` is `memory`, or one of Redis (see `RedisStore.from_url`); `replicas` is how many
    share it, for as long as it has not told; `deadline_s` bounds each call.
    """

    url: str = "memory"
    replicas: int = 1
    deadline_s: float = TIMEOUT_S


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


def build_hooks(
    policy: Callable[[], CompiledPolicy],
    store: Store,
    pins: Pins,
    sinks: Callable[[Limiter], Sequence[Sink]],
    clock: Clock,
    metrics: Metrics,
    domains: Callable[[], Domains] | None = None,
    counts_refused: bool = False,
    auth_failures_per_minute: int = DEFAULT_PER_MINUTE,
) -> Hooks:
    """Builds the hooks. `sinks` gets the limiter, as the console line shows what is left.

    `domains` is the configuration of envoyproxy/ratelimit in force, if there is one, and
    `counts_refused` whether its limits count hits that they refuse. An address may fail
    `auth_failures_per_minute` times to show a known key, before it is told so no more.
    """
    drop_in = None
    if domains is not None:
        drop_in = DropIn(store, domains, clock, metrics, counts_refused)

    def prices_of(name: str) -> Prices | None:
        model = policy().models.get(name)
        return None if model is None else model.prices

    estimator = Estimator()
    # Only a store that replicas share has anything held by one of them.
    settle_held = store.settle_held if isinstance(store, SlicedStore) else None
    limiter = Limiter(store, policy, clock, settle_held=settle_held)
    return Hooks(
        authorization=Authorization(policy, FailureLimit(auth_failures_per_minute), clock, metrics),
        processor=ExternalProcessor(
            policy,
            estimator,
            new_reservation_id,
            PeekLimits(store, clock, metrics),
            pins,
            metrics,
            clock,
        ),
        rate_limit=RateLimitService(limiter, metrics, clock, drop_in),
        access_log=AccessLogService(
            limiter.settle, estimator.learn, prices_of, sinks(limiter), policy, metrics
        ),
        limiter=limiter,
    )


def new_reservation_id() -> str:
    """A reservation id that nobody can guess."""
    return uuid.uuid4().hex


class HookServer:
    """The gRPC server of the hooks, with the standard health service."""

    def __init__(self, hooks: Hooks) -> None:
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers(hooks.handlers())
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str) -> int:
        """Listens on `host:port` or `unix:PATH`; returns the port (0 for a socket).

        Raises OperatorError when the address is taken.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OperatorError(
                f"cannot listen on {address} for hooks: taken, not allowed, or no address;"
                " gRPC says which in the line above"
            ) from error
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self, grace_s: float) -> None:
        """Says NOT_SERVING, lets calls in flight end for at most `grace_s`, then stops."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
