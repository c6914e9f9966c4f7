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
from extauthz.failures import DEFAULT_PER_MINUTE
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.admin.app import admin_app
from headgate.program.admin.server import AdminServer
from headgate.program.app import (
    Hooks,
    HookServer,
    StoreSettings,
    build_hooks,
    running_pins,
    running_store,
)
from headgate.program.reload import DropInWatcher, PolicyWatcher, ignore_change
from ratelimit.limiter import Limiter

log = logging.getLogger("headgate")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What one process of services needs to know.

    Without a `policy` the hooks know nobody, and refuse what they would decide by one.
    `hooks` is `host:port` or `unix:PATH`; `records` a file for usage records, None for
    standard output; `drain_s` how long calls in flight may take to end; `ratelimit_config`
    the files and directories of envoyproxy/ratelimit, if there are any, and
    `counts_refused` whether their limits count hits that they refuse;
    `auth_failures_per_minute` how often an address may fail to show a known key.
    """

    policy: Path | None
    hooks: str
    admin_host: str
    admin_port: int
    store: StoreSettings = field(default_factory=StoreSettings)
    records: Path | None = None
    drain_s: float = 10.0
    ratelimit_config: tuple[Path, ...] = ()
    counts_refused: bool = False
    auth_failures_per_minute: int = DEFAULT_PER_MINUTE


@dataclass(frozen=True, slots=True)
class RunningServices:
    """Services that answer: the hooks, the policy in force, and where the ports are."""

    hooks: Hooks
    metrics: Metrics
    policy: Callable[[], CompiledPolicy]
    hooks_port: int
    admin_url: str


@asynccontextmanager
async def running_services(
    settings: ServeSettings,
    clock: Clock,
    on_change: Callable[[CompiledPolicy], Awaitable[None]] = ignore_change,
    more_sinks: Callable[[Limiter], Sequence[Sink]] = lambda _: (),
    transform: Callable[[CompiledPolicy], CompiledPolicy] = lambda policy: policy,
) -> AsyncIterator[RunningServices]:
    """Starts everything in the order in which it is needed, and drains it in reverse.

    `transform` adapts each policy before anyone sees it; `on_change` is awaited with each
    reloaded one before it is in force. Raises OperatorError for a bad file or a taken port.
    """
    metrics = Metrics(CollectorRegistry(), clock)
    serving = False
    async with AsyncExitStack() as stack:
        policy = _nobody
        if settings.policy is not None:
            watcher = PolicyWatcher(settings.policy, clock, metrics, on_change, transform)
            await stack.enter_async_context(watcher)
            policy = watcher.current
        drop_in = None
        if settings.ratelimit_config:
            drop_in = DropInWatcher(settings.ratelimit_config, clock, metrics)
            await stack.enter_async_context(drop_in)
        store = await stack.enter_async_context(running_store(settings.store, clock, metrics))
        pins = await stack.enter_async_context(running_pins(settings.store, clock))
        records = stack.enter_context(JsonLinesSink.open(settings.records))
        hooks = build_hooks(
            policy,
            store,
            pins,
            lambda limiter: (records, *more_sinks(limiter)),
            clock,
            metrics,
            None if drop_in is None else drop_in.current,
            settings.counts_refused,
            settings.auth_failures_per_minute,
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
            yield RunningServices(hooks, metrics, policy, hooks_port, admin.url)
        finally:
            serving = False


def _nobody() -> CompiledPolicy:
    return CompiledPolicy(models={}, tenants={}, keys={})


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
    """An event that SIGTERM, SIGINT and SIGHUP set, from now on, in place of ending the program.

    A closed terminal sends SIGHUP; under `nohup`, which ignores it, it stays ignored.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, event.set)
    return event
