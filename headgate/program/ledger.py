"""The ledger of this program: it follows the spool of its hooks."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from headgate.core.errors import OperatorError
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.ledger.follow import SpoolFollower
from headgate.program.hooks import HookInputs
from headgate.program.settings import ServiceSettings


def start_ledger(stack: AsyncExitStack, settings: ServiceSettings, inputs: HookInputs) -> None:
    """Follows the spool until the stack ends, if the settings name one.

    Raises OperatorError for a spool without a database, or for a folder that cannot be used.
    """
    folder = settings.ledger.spool
    if folder is None:
        return
    if settings.database.url is None:
        raise OperatorError("--ledger-spool needs a database: name --database, or --database-dir")
    address = database_address(settings.database.url, settings.database.password_file)
    connect = partial(connected, address)
    follower = SpoolFollower(connect, folder, inputs.policy, inputs.clock, inputs.metrics)
    try:
        follower.start()
    except OSError as error:
        raise OperatorError(f"cannot use the spool {folder}: {error.strerror}") from error
    stack.push_async_callback(asyncio.to_thread, follower.stop)
