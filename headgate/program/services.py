"""The services of one process: hooks and admin port, from start to drain."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from accesslog.sink import JsonLinesSink
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.admin.app import admin_app
from headgate.program.api import start_api
from headgate.program.app import (
    Hooks,
    Parts,
    build_hooks,
    running_keys,
    running_pins,
    running_store,
    running_verifier,
)
from headgate.program.ending import Ending
from headgate.program.hook_server import HookServer
from headgate.program.http_server import HttpServer
from headgate.program.reload import RlsConfigWatcher
from headgate.program.settings import ServiceSettings
from headgate.program.stalls import StallWatch, spare_collections
from headgate.rls_config import dump_domains
from ratelimit.descriptors.tree import Domains


@dataclass(frozen=True, slots=True)
class Services:
    """The running services: the URL of their admin port, and their hooks."""

    admin_url: str
    hooks: Hooks


@asynccontextmanager
async def running_services(
    settings: ServiceSettings,
    ending: Ending,
    *,
    policy: Callable[[], CompiledPolicy],
    clock: Clock,
    metrics: Metrics,
    console: Callable[[str], None] | None = None,
    admits: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Services]:
    """Starts everything in the order in which it is needed, and drains it in reverse.

    `policy` returns the one in force. With a `console`, a line for each request goes there. Raises
    OperatorError for a bad file or a taken port.
    """
    ready = {"hooks": False, "policy": True}
    async with AsyncExitStack() as stack:
        parts = Parts(
            policy=policy,
            domains=await _domains(stack, settings, clock, metrics),
            store=await stack.enter_async_context(running_store(settings.store, clock, metrics)),
            pins=await stack.enter_async_context(running_pins(settings.store, clock)),
            keys=await stack.enter_async_context(running_keys(settings.database, clock, metrics)),
            clock=clock,
            metrics=metrics,
            verifier=await stack.enter_async_context(running_verifier(policy, clock, metrics)),
            admits=admits,
        )
        records = stack.enter_context(JsonLinesSink.open(settings.records))
        hooks = build_hooks(settings, parts, (records,), console)
        admin_url = await _start_admin(stack, settings, parts, ready)
        await _start_hooks(stack, settings, hooks, ending)
        await start_api(stack, settings, parts)
        stack.callback(ready.update, hooks=False)
        ready["hooks"] = True
        await stack.enter_async_context(StallWatch(clock, metrics))
        spare_collections()
        yield Services(admin_url, hooks)


async def _domains(
    stack: AsyncExitStack, settings: ServiceSettings, clock: Clock, metrics: Metrics
) -> Callable[[], Domains] | None:
    if not settings.ratelimit_config:
        return None
    watcher = RlsConfigWatcher(settings.ratelimit_config, clock, metrics)
    await stack.enter_async_context(watcher)
    return watcher.current


async def _start_admin(
    stack: AsyncExitStack, settings: ServiceSettings, parts: Parts, ready: Mapping[str, bool]
) -> str:
    domains = parts.domains or dict
    app = admin_app(parts.metrics.registry, lambda: ready, lambda: dump_domains(domains()))
    admin = HttpServer(app, settings.admin)
    await admin.start()
    stack.push_async_callback(admin.stop)
    return admin.url


async def _start_hooks(
    stack: AsyncExitStack, settings: ServiceSettings, hooks: Hooks, ending: Ending
) -> None:
    server = HookServer(hooks.methods(), settings.grpc_server)
    await server.start(settings.hooks)
    stack.push_async_callback(server.drain, ending, lambda: hooks.access_log.open_streams > 0)
