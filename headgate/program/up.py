"""One box: a real Envoy, the services and, in the demo, the vLLM simulator, as one program.

Its parts live and die together: when one of them ends, the others are ended too.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.dataplane.box import MAX_CONNECTIONS, CertifiedListener
from headgate.dataplane.child import room_for_connections
from headgate.dataplane.drain import Drain
from headgate.dataplane.supervisor import Envoy
from headgate.doctor.reachable import check_authorities, silent
from headgate.policy import check_upstream
from headgate.program.addresses import held_address
from headgate.program.demo_counts import count_demo_months
from headgate.program.demo_month import add_demo_months
from headgate.program.demo_statements import reconcile_demo_months
from headgate.program.ending import Ending, on_signals
from headgate.program.envoy import (
    box_of,
    follow_policy,
    metrics_of_envoy,
    running_envoy,
    upstreams,
)
from headgate.program.postgres.server import Postgres, running_postgres
from headgate.program.reload import PolicyWatcher
from headgate.program.run_folder import hook_sockets, run_folder
from headgate.program.services import BoxParts, Services, running_services
from headgate.program.settings import BoxSettings
from headgate.program.simulated import running_demo
from headgate.program.tls import CertificateWatcher
from headgate.program.welcome import welcome
from ratelimit.store.memory import MemoryStore

_STDOUT = 1
SPOOL = "spool"
"""The folder of the ledger's spool in --database-dir."""

Say = Callable[[str], None]
"""Prints one line."""

Death = Callable[[], Coroutine[Any, Any, None]]
"""Waits until a child process ends, and raises the OperatorError that says so."""


async def up(settings: BoxSettings, clock: Clock, say: Say) -> None:
    """`headgate up`: runs until it is stopped or a part of it dies.

    Raises OperatorError when something cannot start or has died, after it has stopped the rest.
    """
    ending = on_signals(settings.drain_s)
    async with one_box(settings, clock, say, ending) as parts:
        await _first_of(ending.begun.wait(), *(died() for died in parts.deaths))
        with suppress(OSError):  # a terminal that is gone
            say(_stopping(await parts.envoy.active_requests(), settings.drain_s))


def _stopping(running: int, drain_s: float) -> str:
    if not running:
        return "stopping"
    are = "1 running request gets" if running == 1 else f"{running} running requests get"
    return f"stopping: {are} up to {drain_s:g} s to end (Ctrl-C again: no time)"


@dataclass(frozen=True, slots=True)
class Parts:
    """The running Envoy, and for each child process a function that waits for its end."""

    envoy: Envoy
    deaths: Sequence[Death]


@asynccontextmanager
async def one_box(
    settings: BoxSettings, clock: Clock, say: Say, ending: Ending
) -> AsyncIterator[Parts]:
    """Starts the parts in the order in which they need each other, and says how to try them.

    At the end Envoy is drained first, while the hooks still answer, and the services end last.
    """
    metrics = Metrics(CollectorRegistry(), clock)
    async with AsyncExitStack() as stack:
        settings = _with_held_addresses(stack, settings)
        folder = stack.enter_context(run_folder(settings.run_dir))
        demo, policy_file = None, settings.policy
        if policy_file is None:
            demo = await stack.enter_async_context(running_demo(folder))
            policy_file = demo.policy_file
        settings, database = await _database(stack, _completed(settings, say))
        policy = PolicyWatcher(policy_file, clock, metrics, upstream=settings.upstream)
        ending.on_hangup.append(policy.look_again)
        stack.push_async_callback(policy.stop)  # it is followed while Envoy drains, too
        running = running_services(
            settings,
            ending,
            policy=policy.current,
            clock=clock,
            metrics=metrics,
            console=say if somebody_looks() else None,
            box=_box_parts(settings, folder),
        )
        services = await stack.enter_async_context(running)
        certificates = _certificates(settings, clock, metrics)
        certificate = None if certificates is None else certificates.current()
        box = box_of(settings, folder, policy.current(), certificate)
        envoy = await stack.enter_async_context(running_envoy(box, _drain(ending, services)))
        await _follow(stack, envoy, services, policy, certificates)
        await _say_silent_upstreams(policy.current(), settings.upstream_ca, say)
        if demo is not None:
            await _show_a_month(settings, clock, policy.current(), services.memory)
        for line in welcome(settings, services.admin_url, demo):
            say(line)
        yield Parts(envoy, [part.died for part in (database, envoy) if part is not None])


def _box_parts(settings: BoxSettings, folder: Path) -> BoxParts:
    sockets = hook_sockets(folder, settings.workers)
    return BoxParts(sockets, lambda: metrics_of_envoy(folder), settings.upstream_ca)


async def _show_a_month(
    settings: BoxSettings, clock: Clock, policy: CompiledPolicy, memory: MemoryStore
) -> None:
    """Adds the demo's months to its ledger, if it has one, and to the counters of its limits."""
    if settings.database.url is not None and settings.ledger.spool is not None:
        address = database_address(settings.database.url, settings.database.password_file)
        await add_demo_months(partial(connected, address), clock, policy)
        await reconcile_demo_months(partial(connected, address), clock, policy)
        await count_demo_months(memory, clock, policy)


async def _database(
    stack: AsyncExitStack, settings: BoxSettings
) -> tuple[BoxSettings, Postgres | None]:
    """Starts the box's own PostgreSQL, if it has one: the settings with its address."""
    if settings.database_dir is None:
        return settings, None
    server = await stack.enter_async_context(running_postgres(settings.database_dir))
    ledger = settings.ledger
    if ledger.spool is None:
        ledger = replace(ledger, spool=server.folder.path / SPOOL)
    database = replace(settings.database, url=server.url)
    return replace(settings, database=database, ledger=ledger), server


def somebody_looks(descriptor: int = _STDOUT) -> bool:
    """Whether an output leads anywhere. Lines for /dev/null would cost every request."""
    with suppress(OSError):
        return not os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
    return True


def _certificates(
    settings: BoxSettings, clock: Clock, metrics: Metrics
) -> CertificateWatcher | None:
    if settings.tls is None:
        return None
    return CertificateWatcher(settings.tls, clock, metrics, CertifiedListener.DOOR)


def _with_held_addresses(stack: AsyncExitStack, settings: BoxSettings) -> BoxSettings:
    """The settings with addresses as numbers. Raises OperatorError for a bad URL or address."""
    if settings.upstream is not None:
        check_upstream(settings.upstream)
    if settings.database.url is not None and settings.database_dir is not None:
        raise OperatorError("--database names your own and --database-dir starts one: take one")
    if settings.upstream_ca is not None:
        check_authorities(settings.upstream_ca)
    return replace(
        settings,
        listen=stack.enter_context(held_address(settings.listen, "--listen")),
        admin=stack.enter_context(held_address(settings.admin, "--admin")),
    )


def _completed(settings: BoxSettings, say: Say) -> BoxSettings:
    """The settings with as many connections as there is room for.

    Beyond that number Envoy would have no file left for a connection to a vLLM.
    """
    requested, room = settings.max_connections, room_for_connections()
    if requested is not None and requested > room:
        say(
            f"note: --max-connections {requested} is taken as {room}, as `ulimit -n` allows no more"
        )
    return replace(
        settings,
        max_connections=min(MAX_CONNECTIONS if requested is None else requested, room),
    )


async def _follow(
    stack: AsyncExitStack,
    envoy: Envoy,
    services: Services,
    policy: PolicyWatcher,
    certificates: CertificateWatcher | None,
) -> None:
    """From now on Envoy follows the policy and the certificate, and then the services."""

    async def follow(new: CompiledPolicy) -> None:
        await follow_policy(envoy, new)
        await services.answering.set_policy(new)

    policy.set_follower(follow)
    policy.start()
    if certificates is not None:
        certificates.set_follower(envoy.renew)
        await stack.enter_async_context(certificates)


def _drain(ending: Ending, services: Services) -> Drain:
    return Drain(ending.drain_s, ending.hurry, services.answering.handled_entries)


async def _say_silent_upstreams(policy: CompiledPolicy, authorities: Path | None, say: Say) -> None:
    urls = upstreams(policy)
    for model, problem in (await silent(urls, authorities)).items():
        say(f"note: the vLLM of {model} ({urls[model]}) {problem}")


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Waits for the first to end, cancels the others, and raises what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
