"""The services of one process: hooks, admin port and policy reload, from start to drain."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from accesslog.sink import JsonLinesSink, Sink
from admin.app import admin_app
from admin.server import AdminServer
from headgate.app import Hooks, HookServer, StoreSettings, build_hooks, running_store
from headgate.clock import Clock
from headgate.metrics import Metrics
from headgate.reload import PolicyWatcher, ignore_change
from ratelimit.limiter import Limiter
from registry.types import Registry

log = logging.getLogger("headgate")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What one process of services needs to know.

    `hooks` is `host:port` or `unix:PATH`; `records` a file for usage records, None for
    standard output; `drain_s` how long calls in flight may take to end.
    """

    policy: Path
    hooks: str
    admin_host: str
    admin_port: int
    store: StoreSettings = field(default_factory=StoreSettings)
    records: Path | None = None
    drain_s: float = 10.0


@dataclass(frozen=True, slots=True)
class RunningServices:
    """Services that answer: the hooks, the registry in force, and where the ports are."""

    hooks: Hooks
    registry: Callable[[], Registry]
    hooks_port: int
    admin_url: str


@asynccontextmanager
async def running_services(
    settings: ServeSettings,
    clock: Clock,
    on_change: Callable[[Registry], Awaitable[None]] = ignore_change,
    more_sinks: Callable[[Limiter], Sequence[Sink]] = lambda _: (),
    transform: Callable[[Registry], Registry] = lambda registry: registry,
) -> AsyncIterator[RunningServices]:
    """Starts everything in the order in which it is needed, and drains it in reverse.

    `transform` adapts each policy before anyone sees it; `on_change` is awaited with each
    reloaded one before it is in force. Raises OperatorError for a bad policy or a taken port.
    """
    metrics = Metrics(CollectorRegistry(), clock)
    serving = False
    async with AsyncExitStack() as stack:
        watcher = PolicyWatcher(settings.policy, clock, metrics, on_change, transform)
        await stack.enter_async_context(watcher)
        store = await stack.enter_async_context(running_store(settings.store, clock, metrics))
        records = stack.enter_context(JsonLinesSink.open(settings.records))
        hooks = build_hooks(
            watcher.current, store, lambda limiter: (records, *more_sinks(limiter)), clock, metrics
        )
        admin = AdminServer(
            admin_app(metrics.registry, lambda: {"hooks": serving, "policy": True}),
            settings.admin_host,
            settings.admin_port,
        )
        await admin.start()
        stack.push_async_callback(admin.stop)
        server = HookServer(hooks)
        hooks_port = await server.start(settings.hooks)
        stack.push_async_callback(server.drain, settings.drain_s)
        serving = True
        try:
            yield RunningServices(hooks, watcher.current, hooks_port, admin.url)
        finally:
            serving = False


async def serve(settings: ServeSettings, clock: Clock) -> None:
    """`headgate serve`: runs until SIGTERM or SIGINT, then drains."""
    stop = stop_event()
    async with running_services(settings, clock) as services:
        print(
            f"headgate serves hooks on {settings.hooks}, admin on {services.admin_url}",
            file=sys.stderr,
            flush=True,
        )
        await stop.wait()
        log.info("draining for at most %g s", settings.drain_s)


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, from now on, in place of ending the program."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event
