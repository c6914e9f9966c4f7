"""The services: the hooks, in this process or in workers, and the admin port."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from headgate.console.surroundings import Surroundings
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.adapters import start_adapters
from headgate.program.admin.app import admin_app
from headgate.program.admin.config import shown_settings
from headgate.program.admin.degraded import degraded
from headgate.program.api import start_api
from headgate.program.ending import Ending
from headgate.program.hooks import HookInputs
from headgate.program.http_server import HttpServer
from headgate.program.ledger import start_ledger
from headgate.program.logs import switch_level
from headgate.program.one_process import OneProcess
from headgate.program.reload import RlsConfigWatcher
from headgate.program.series import start_series
from headgate.program.settings import LogLevel, ServiceSettings
from headgate.program.surroundings import surroundings
from headgate.program.workers.pool import Workers
from headgate.program.workers.setups import setups
from headgate.rls_config import dump_domains
from ratelimit.descriptors.tree import Domains
from ratelimit.store.memory import MemoryStore


class Answering(Protocol):
    """Answers the hooks: by this process, or by its workers."""

    @property
    def are_ready(self) -> bool:
        """Whether all hooks answer."""
        ...

    async def start(self) -> None:
        """Returns once they answer. Raises OperatorError, and leaves nothing behind then."""
        ...

    async def stop(self) -> None:
        """Drains and ends them."""
        ...

    async def set_policy(self, policy: CompiledPolicy) -> None:
        """Returns once all decide by it."""
        ...

    async def set_domains(self, domains: Domains) -> None:
        """Returns once all decide by it."""
        ...

    def log_from(self, level: LogLevel) -> None:
        """The log of this process has this level from now on. That of all workers gets it, too."""
        ...

    async def registry(self) -> CollectorRegistry:
        """The metrics of the whole program."""
        ...

    def gauge(self, name: str) -> float:
        """The last known value of a gauge without labels, for the whole program."""
        ...

    async def handled_entries(self) -> int:
        """How many access log entries are recorded and settled."""
        ...


@dataclass(frozen=True, slots=True)
class BoxParts:
    """One box around the services.

    Its Envoy calls the `sockets` in turn, one for each worker. `envoy_metrics` returns Envoy's own
    metrics, or None while it does not answer. `authorities` are those of the vLLMs' certificates.
    """

    sockets: Sequence[Path]
    envoy_metrics: Callable[[], Awaitable[str | None]]
    authorities: Path | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """The running services: the URL of their admin port, and what answers the hooks.

    `memory` counts the limits where --store is memory.
    """

    admin_url: str
    answering: Answering
    memory: MemoryStore


@asynccontextmanager
async def running_services(
    settings: ServiceSettings,
    ending: Ending,
    *,
    policy: Callable[[], CompiledPolicy],
    clock: Clock,
    metrics: Metrics,
    console: Callable[[str], None] | None = None,
    box: BoxParts | None = None,
) -> AsyncIterator[Services]:
    """Starts everything in the order in which it is needed, and drains it in reverse.

    `policy` returns the one in force. With a `console`, a line for each request goes there.
    Once a `box` ends, new requests are refused. Raises OperatorError for a bad file or port.
    """
    start_series(metrics)
    async with AsyncExitStack() as stack:
        watcher = _watcher(settings, clock, metrics)
        inputs = HookInputs(
            policy=policy,
            domains=None if watcher is None else watcher.current,
            clock=clock,
            metrics=metrics,
            console=console,
            admits=lambda: box is None or ending.is_admitting(),
        )
        answering = _answering(settings, inputs, ending, box.sockets if box else ())
        ready = {"hooks": "they have not started yet"}
        admin = _admin_app(settings, answering, inputs, ready, box)
        admin_url = await _start_admin(stack, settings, admin)
        start_ledger(stack, settings, inputs)
        await answering.start()
        stack.push_async_callback(answering.stop)
        await start_api(stack, settings, inputs, _surroundings(settings, inputs, answering, box))
        await start_adapters(stack, settings, inputs)
        stack.callback(ready.update, hooks="the program ends, and they drain")
        ready["hooks"] = ""
        if watcher is not None:
            await stack.enter_async_context(_following(watcher, answering, ending))
        yield Services(admin_url, answering, inputs.memory)


def _watcher(settings: ServiceSettings, clock: Clock, metrics: Metrics) -> RlsConfigWatcher | None:
    if not settings.ratelimit_config:
        return None
    return RlsConfigWatcher(settings.ratelimit_config, clock, metrics)


def _following(watcher: RlsConfigWatcher, answering: Answering, ending: Ending) -> RlsConfigWatcher:
    """The watcher, whose changes reach all that answer hooks. SIGHUP makes it look again."""
    watcher.set_follower(answering.set_domains)
    ending.on_hangup.append(watcher.look_again)
    return watcher


def _built(
    settings: ServiceSettings, inputs: HookInputs, ending: Ending, box_sockets: Sequence[Path]
) -> Answering:
    if settings.workers > 1:
        return Workers(setups(settings, inputs, box_sockets), inputs, ending)
    if box_sockets:
        settings = replace(settings, hooks=f"unix:{box_sockets[0]}")
    return OneProcess(settings, inputs, ending, is_private=bool(box_sockets))


def _answering(
    settings: ServiceSettings, inputs: HookInputs, ending: Ending, box_sockets: Sequence[Path]
) -> Answering:
    """Not started yet. From now on SIGUSR1 changes the level of the log to DEBUG, and back."""
    answering = _built(settings, inputs, ending, box_sockets)
    usual = settings.log.level
    ending.on_user_signal.append(lambda: answering.log_from(switch_level(usual)))
    return answering


def _surroundings(
    settings: ServiceSettings, inputs: HookInputs, answering: Answering, box: BoxParts | None
) -> AbstractAsyncContextManager[Surroundings]:
    envoy = None if box is None else box.envoy_metrics
    authorities = None if box is None else box.authorities
    return surroundings(settings.store, inputs.memory, answering.registry, envoy, authorities)


def _admin_app(
    settings: ServiceSettings,
    answering: Answering,
    inputs: HookInputs,
    ready: Mapping[str, str],
    box: BoxParts | None,
) -> Starlette:
    def parts() -> Mapping[str, str]:
        missing = "" if answering.are_ready else "a worker does not answer, and is started again"
        return {"hooks": ready["hooks"] or missing, "policy": ""}

    return admin_app(
        answering.registry,
        parts,
        degraded=lambda: degraded(answering.gauge, inputs.clock.now_s()),
        rate_limits=lambda: dump_domains((inputs.domains or dict)()),
        config=lambda: shown_settings(settings),
        envoy_metrics=None if box is None else box.envoy_metrics,
    )


async def _start_admin(stack: AsyncExitStack, settings: ServiceSettings, app: Starlette) -> str:
    admin = HttpServer(app, settings.admin)
    await admin.start()
    stack.push_async_callback(admin.stop)
    return admin.url
