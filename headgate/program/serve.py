"""`headgate serve`: the services alone, until a signal ends them."""

import logging
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.ending import Ending, on_signals
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
        policy = await _policy(stack, settings, ending, clock, metrics)
        services = await stack.enter_async_context(
            running_services(settings, ending, policy=policy, clock=clock, metrics=metrics)
        )
        print(
            f"headgate serves hooks on {settings.hooks}, admin on {services.admin_url}",
            file=sys.stderr,
            flush=True,
        )
        await ending.begun.wait()
        log.info("draining for at most %g s", settings.drain_s)


async def _policy(
    stack: AsyncExitStack,
    settings: ServiceSettings,
    ending: Ending,
    clock: Clock,
    metrics: Metrics,
) -> Callable[[], CompiledPolicy]:
    """The policy in force. Without a policy file it holds no model, no tenant and no key."""
    if settings.policy is None:
        empty = CompiledPolicy(models={}, tenants={}, keys={})
        return lambda: empty
    watcher = PolicyWatcher(settings.policy, clock, metrics)
    await stack.enter_async_context(watcher)
    ending.on_hangup.append(watcher.look_again)
    return watcher.current
