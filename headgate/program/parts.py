"""The running parts that the hooks share: the store, versions, keys and the verifier of tokens."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from extauthz.identify import Verifier
from extproc.cache.cache import AnswerCache
from extproc.pins.memory import MemoryPins
from extproc.pins.redis import RedisPins
from extproc.versions import Pins
from headgate.adapters.reading import FollowedAdapters
from headgate.adapters.registry import MemoryRegistry
from headgate.adapters.uses import UseNotes
from headgate.core.adapters import NO_ADAPTERS, NO_USES, Adapters, Uses
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.failover import Failover
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.metrics import Metrics
from headgate.core.pods import named_pods
from headgate.core.policy import CompiledPolicy
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.identity.follow import KeyFollower
from headgate.identity.issuers.fetch import HttpFetch
from headgate.identity.issuers.source import IssuerKeys
from headgate.identity.ring import MemoryRing
from headgate.identity.snapshot import Snapshot
from headgate.identity.store import KeyStore
from headgate.identity.tokens.revocations import NOTHING_REVOKED
from headgate.identity.verifier import TokenVerifier
from headgate.ledger.notices.looking import NoticeKeeper
from headgate.placement.exchange import LoadExchange, OwnLoads, RedisLoads
from headgate.placement.loads import PodLoads
from headgate.placement.names import PodNames
from headgate.placement.outage_exchange import OutageExchange, RedisOutages
from headgate.placement.outages import Outages
from headgate.placement.places import BoundedPlaces
from headgate.placement.spares import Spares
from headgate.program.settings import DatabaseSettings, StoreSettings
from ratelimit.descriptors.tree import Domains
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from ratelimit.store.slices.sliced import SlicedStore
from ratelimit.store.virtual_times import VirtualTimeExchange


@asynccontextmanager
async def running_store(
    settings: StoreSettings,
    clock: Clock,
    metrics: Metrics,
    virtual_times: VirtualTimes | None = None,
    memory: MemoryStore | None = None,
) -> AsyncIterator[Store]:
    """The store named on the command line. It starts without its Redis too.

    `memory` is used where the settings name it. Through a Redis, replicas exchange the
    `virtual_times` of vLLM's queues.

    Raises OperatorError for a URL that is none.
    """
    if settings.url == "memory":
        if settings.password_file is not None:
            raise OperatorError("--store-password-file goes with a --store that is a Redis")
        yield memory or MemoryStore()
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
    settings: DatabaseSettings, clock: Clock, metrics: Metrics, registry: MemoryRegistry
) -> AsyncIterator[MemoryRing | None]:
    """The keys and users of the database, followed there. None without a database.

    Its adapters go into the registry. It starts without its database too. Raises OperatorError for
    a bad URL or password file.
    """
    if settings.url is None:
        yield None
        return
    address = database_address(settings.url, settings.password_file)
    ring = MemoryRing(clock, settings.keys_stale_s)
    snapshot = None
    if settings.keys_snapshot is not None:
        snapshot = Snapshot(settings.keys_snapshot, clock)
    connect = partial(connected, address)
    followed = [FollowedAdapters(registry)]
    async with KeyFollower(connect, ring, snapshot, clock, metrics, others=followed):
        yield ring


@asynccontextmanager
async def running_places(
    policy: Callable[[], CompiledPolicy], settings: StoreSettings, clock: Clock, metrics: Metrics
) -> AsyncIterator[BoundedPlaces]:
    """Chooses between the pods of the policy, whose names it resolves.

    Replicas exchange the requests in flight through the Redis of the store. Raises OperatorError
    for a bad URL.
    """

    def named() -> Iterator[str]:
        for model in policy().models.values():
            yield from named_pods(model)

    loads = PodLoads(clock.now_s)
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(PodNames(named, clock))
        share = OwnLoads().share
        if settings.url != "memory":
            shared = RedisLoads(settings.url, settings.deadline_s, settings.password_file)
            stack.push_async_callback(shared.close)
            share = shared.share
        await stack.enter_async_context(LoadExchange(loads, share, clock))
        count = metrics.of_placement.choices.labels
        yield BoundedPlaces(names.addresses, loads, lambda choice: count(choice).inc())


@asynccontextmanager
async def running_spares(
    places: BoundedPlaces,
    policy: Callable[[], CompiledPolicy],
    settings: StoreSettings,
    clock: Clock,
) -> AsyncIterator[Spares]:
    """Moves requests to the spare versions of the policy. Raises OperatorError for a bad URL.

    Replicas exchange what they hear of outages through the Redis of the store.
    """

    def failover_of(base: str) -> Failover | None:
        model = policy().models.get(base)
        return None if model is None else model.failover

    outages = Outages(clock.now_s)
    async with AsyncExitStack() as stack:
        if settings.url != "memory":
            shared = RedisOutages(settings.url, settings.deadline_s, settings.password_file)
            stack.push_async_callback(shared.close)
            await stack.enter_async_context(OutageExchange(outages, shared, clock))
        yield Spares(places, outages, failover_of)


def key_store(settings: DatabaseSettings, clock: Clock) -> KeyStore | None:
    """Where keys are issued; None without a database. Raises OperatorError for a bad URL."""
    if settings.url is None:
        return None
    return KeyStore(
        partial(connected, database_address(settings.url, settings.password_file)), clock
    )


@asynccontextmanager
async def running_uses(
    settings: DatabaseSettings, clock: Clock, registry: MemoryRegistry
) -> AsyncIterator[Uses]:
    """Where uses of adapters are noted; nowhere without a database. Raises OperatorError."""
    if settings.url is None:
        yield NO_USES
        return
    address = database_address(settings.url, settings.password_file)
    async with UseNotes(partial(connected, address), registry, uuid.uuid4().hex, clock) as uses:
        yield uses


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
    places: BoundedPlaces | None = None
    """Chooses pods, where the policy names them. With None, Envoy chooses all of them."""
    spares: Spares | None = None
    """Moves requests to the spare versions of models. With None, each request stays."""
    keys: KeyRing = NO_KEYS
    """The keys that were issued at run time; none without a database."""
    adapters: Adapters = NO_ADAPTERS
    """The models that were registered at run time; none without a database."""
    uses: Uses = NO_USES
    """Notes which of their versions are used."""
    virtual_times: VirtualTimes | None = None
    """Those of vLLM's queues, which the store exchanges."""
    key_store: KeyStore | None = None
    """Where users make their own keys; None without a database."""
    answers: AnswerCache | None = None
    """Answers that were kept; None without a secret for their keys."""


@asynccontextmanager
async def running_notices(settings: DatabaseSettings, parts: Parts) -> AsyncIterator[None]:
    """Thresholds of limits are looked at, and people are told, if there is a database."""
    if settings.url is None:
        yield
        return
    connect = partial(connected, database_address(settings.url, settings.password_file))
    async with NoticeKeeper(
        connect, parts.policy, parts.store, parts.clock, parts.metrics, keys=parts.keys
    ):
        yield
