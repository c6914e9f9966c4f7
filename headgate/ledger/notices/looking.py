"""Looks at thresholds and sends notices, every few seconds, beside the hooks.

No request waits for it. Any number of programs may do so: the database lets one of them decide.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import psycopg

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection, DatabaseAwayError, first_line, within
from headgate.database.migrate import check_schema
from headgate.ledger.notices.counters import has_notices
from headgate.ledger.notices.deciding import decide
from headgate.ledger.notices.sending import Sender, channels_in
from ratelimit.store.protocol import Store, StoreError

PAUSE_S = 10.0
LOOK_S = 60.0
SEND_S = 300.0
"""The longest turn of a slow receiver; then the database is held to be silent."""
NEVER_S = 1.0

log = logging.getLogger("headgate.ledger")

Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class NoticeKeeper:
    """Looks and sends for as long as its block runs, as an asynchronous context manager."""

    def __init__(
        self,
        connect: Connect,
        policy: Callable[[], CompiledPolicy],
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        keys: KeyRing = NO_KEYS,
    ) -> None:
        self._connect = connect
        self._policy = policy
        self._store = store
        self._keys = keys
        self._clock = clock
        self._looked = metrics.of_ledger.notices_looked_seconds
        self._looked_s = NEVER_S
        self._sender = Sender(clock, metrics.of_ledger)
        self._is_away = False
        self._task = BackgroundTask("notices", self.turn, PAUSE_S, log, at_once=True)

    async def __aenter__(self) -> Self:
        self._task.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._task.stop()
        await self._sender.aclose()

    async def turn(self) -> None:
        """Looks once, and sends what is due. A failure is tried again at the next turn."""
        policy = self._policy()
        is_asked = has_notices(policy)
        self._looked.set(self._looked_s if is_asked else 0)
        if not is_asked and not channels_in(policy):
            return
        try:
            async with self._connect() as connection:
                await self._do(connection, policy, is_asked=is_asked)
            self._say_back()
        except Exception as error:
            self._say_away(error)

    async def _do(self, connection: Connection, policy: CompiledPolicy, *, is_asked: bool) -> None:
        await check_schema(connection)
        now_s = self._clock.now_s()
        while is_asked and await within(
            LOOK_S, connection, decide(connection, policy, self._keys, self._store, now_s)
        ):
            pass
        if is_asked:
            self._looked_s = now_s
            self._looked.set(now_s)
        await within(SEND_S, connection, self._sender.send_due(connection, policy))

    def _say_away(self, error: Exception) -> None:
        """Once for each outage."""
        if not self._is_away:
            self._is_away = True
            known = (DatabaseAwayError, OperatorError, StoreError, psycopg.Error, OSError)
            text = first_line(error) if isinstance(error, known) else repr(error)
            log.error("notices of limits wait: %s", text)

    def _say_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.warning("notices of limits go out again")
