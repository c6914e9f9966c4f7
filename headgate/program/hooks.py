"""The hooks of one process with their store, records and server, from start to drain."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from accesslog.sink import JsonLinesSink, Sink
from accesslog.spool import SpoolSink
from extproc.cache.memory import MemoryAnswers
from headgate.adapters.registry import MemoryRegistry
from headgate.core.adapters import NO_ADAPTERS
from headgate.core.clock import Clock
from headgate.core.key_ring import NO_KEYS
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.answers import running_answers
from headgate.program.app import Hooks, build_hooks
from headgate.program.ending import Ending
from headgate.program.hook_server import HookServer
from headgate.program.parts import (
    Parts,
    key_store,
    running_keys,
    running_notices,
    running_pins,
    running_places,
    running_spares,
    running_store,
    running_uses,
    running_verifier,
)
from headgate.program.settings import ServiceSettings
from headgate.program.stalls import StallWatch, spare_collections
from ratelimit.descriptors.tree import Domains
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.memory import MemoryStore


@dataclass(frozen=True, slots=True, kw_only=True)
class HookInputs:
    """The values that the program around them passes to the hooks.

    `policy` and `domains` return the versions in force; `domains` is None without
    --ratelimit-config. With a `console`, a line for each request goes there. `admits` says whether
    new requests may come in. `record_lock` is that of `JsonLinesSink`. `memory` counts the limits
    where --store is memory, and `answers` keeps answers there.
    """

    policy: Callable[[], CompiledPolicy]
    domains: Callable[[], Domains] | None
    clock: Clock
    metrics: Metrics
    console: Callable[[str], None] | None = None
    admits: Callable[[], bool] = lambda: True
    record_lock: int | None = None
    memory: MemoryStore = field(default_factory=MemoryStore)
    answers: MemoryAnswers = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", MemoryAnswers(self.clock))


@asynccontextmanager
async def running_hooks(
    settings: ServiceSettings,
    inputs: HookInputs,
    ending: Ending,
    open_door: Callable[[HookServer], Awaitable[None]],
) -> AsyncIterator[Hooks]:
    """Starts everything in the order in which it is needed, and drains it in reverse.

    `open_door` lets calls reach the server. Raises OperatorError for a bad file or a taken port.
    """
    async with AsyncExitStack() as stack:
        parts = await _parts(stack, settings, inputs)
        hooks = build_hooks(settings, parts, _sinks(stack, settings, inputs), inputs.console)
        await stack.enter_async_context(hooks.unanswered)
        server = HookServer(hooks.methods(), settings.grpc_server, settings.workers)
        await open_door(server)
        stack.push_async_callback(server.drain, ending, lambda: hooks.access_log.open_streams > 0)
        await stack.enter_async_context(running_notices(settings.database, parts))
        await stack.enter_async_context(StallWatch(inputs.clock, inputs.metrics))
        spare_collections()
        yield hooks


async def _parts(stack: AsyncExitStack, settings: ServiceSettings, inputs: HookInputs) -> Parts:
    """The parts, started in the order in which they are needed."""
    clock, metrics = inputs.clock, inputs.metrics
    virtual_times = VirtualTimes(clock.monotonic_s)
    registry = MemoryRegistry()
    ring = await stack.enter_async_context(
        running_keys(settings.database, clock, metrics, registry)
    )
    places = await stack.enter_async_context(
        running_places(inputs.policy, settings.store, clock, metrics)
    )
    return Parts(
        policy=inputs.policy,
        domains=inputs.domains,
        store=await stack.enter_async_context(
            running_store(settings.store, clock, metrics, virtual_times, inputs.memory)
        ),
        pins=await stack.enter_async_context(running_pins(settings.store, clock)),
        places=places,
        spares=await stack.enter_async_context(
            running_spares(places, inputs.policy, settings.store, clock)
        ),
        keys=NO_KEYS if ring is None else ring,
        adapters=NO_ADAPTERS if ring is None else registry,
        uses=await stack.enter_async_context(running_uses(settings.database, clock, registry)),
        key_store=key_store(settings.database, clock),
        answers=await stack.enter_async_context(
            running_answers(settings, inputs.policy, inputs.answers, clock, metrics)
        ),
        verifier=await stack.enter_async_context(
            running_verifier(inputs.policy, clock, metrics, ring)
        ),
        clock=clock,
        metrics=metrics,
        admits=inputs.admits,
        virtual_times=virtual_times,
    )


def _sinks(
    stack: AsyncExitStack, settings: ServiceSettings, inputs: HookInputs
) -> tuple[Sink, ...]:
    """Where usage records go: to the file or standard output, and to the ledger's spool."""
    records = stack.enter_context(JsonLinesSink.open(settings.records, inputs.record_lock))
    ledger = settings.ledger
    if ledger.spool is None:
        return (records,)
    lost = inputs.metrics.of_ledger.lost.inc
    spool = SpoolSink.open(ledger.spool, ledger.spool_limit_bytes, lost)
    return records, stack.enter_context(spool)
