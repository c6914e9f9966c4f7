"""The reconciler of adapters of this program. Every replica has one, and one of them leads."""

from contextlib import AsyncExitStack
from functools import partial

from headgate.adapters.reconcile.reconciler import Reconciler
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.program.hooks import HookInputs
from headgate.program.settings import ServiceSettings


async def start_adapters(
    stack: AsyncExitStack, settings: ServiceSettings, inputs: HookInputs
) -> None:
    """Reconciles until the stack ends, if there is a database. Raises OperatorError."""
    if settings.database.url is None:
        return
    address = database_address(settings.database.url, settings.database.password_file)
    connect = partial(connected, address)
    metrics = inputs.metrics.of_adapters
    await stack.enter_async_context(Reconciler(connect, inputs.policy, inputs.clock, metrics))
