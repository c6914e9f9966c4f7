"""`headgate serve`: the services alone, until a signal ends them."""

import logging
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.ending import on_signals
from headgate.program.reload import PolicyWatcher
from headgate.program.services import running_services
from headgate.program.settings import ServiceSettings

log = logging.getLogger("headgate")


async def serve(settings: ServiceSettings, clock: Clock) -> None:
    """`headgate serve`: runs until SIGTERM or SIGINT, then drains.

    Raises OperatorError for a bad file or a taken port.
    """
    ending = on_signals(settings.drain_s)
    metrics = Metrics(CollectorRegistry(), clock)
    async with AsyncExitStack() as stack:
        watcher = _watcher(settings, clock, metrics)
        policy = _no_policy if watcher is None else watcher.current
        services = await stack.enter_async_context(
            running_services(settings, ending, policy=policy, clock=clock, metrics=metrics)
        )
        if watcher is not None:
            watcher.set_follower(services.answering.set_policy)
            ending.on_hangup.append(watcher.look_again)
            await stack.enter_async_context(watcher)
        print(
            f"headgate serves hooks on {settings.hooks}, admin on {services.admin_url}",
            file=sys.stderr,
            flush=True,
        )
        await ending.begun.wait()
        log.info("draining for at most %g s", settings.drain_s)


def _watcher(settings: ServiceSettings, clock: Clock, metrics: Metrics) -> PolicyWatcher | None:
    return None if settings.policy is None else PolicyWatcher(settings.policy, clock, metrics)


def _no_policy() -> CompiledPolicy:
    """Without a policy file there is no model, no tenant and no key."""
    return CompiledPolicy(models={}, tenants={}, keys={})
