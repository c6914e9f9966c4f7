"""Sends commands to Redis: those of one round of the event loop in one write.

One connection carries the commands of a whole process. No command waits for another's answer, as
Redis answers in order. For a cluster, redis-py finds the node of each command: one write each.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, cast

from hiredis import pack_command
from redis.asyncio import Connection, Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from ratelimit.store.deadline import Deadline, deadline

_PARALLEL = 64
"""Calls to a cluster in parallel: each has a connection of its own."""

Word = str | int
"""A part of a command."""


class Commands(Protocol):
    """Sends commands, each with a deadline."""

    async def execute(
        self, command: Sequence[Word], timeout_s: float, *, repeats: bool = True
    ) -> Any:
        """The answer to one command. One that `repeats` may be sent a second time.

        Raises TimeoutError, RedisError, RedisClusterException or OSError.
        """
        ...

    async def close(self) -> None:
        """Ends what is under way."""
        ...


def commands_to(client: "Redis | RedisCluster") -> Commands:
    """The commands of this client."""
    return ToCluster(client) if isinstance(client, RedisCluster) else ToRedis(client)


class _Asked:
    """A command without an answer. `news` says what had happened when it was asked."""

    __slots__ = ("answer", "bytes", "news", "sends_left")

    def __init__(self, command: Sequence[Word], news: int, sends: int) -> None:
        self.bytes: bytes = pack_command(cast("tuple[str]", tuple(command)))  # of any length
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.news = news
        self.sends_left = sends

    def take(self, answer: object) -> None:
        """The answer, which nobody may wait for any more."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class ToRedis:
    """See `Commands`. Connects at the first command.

    If the connection breaks, commands that it has not answered are sent once more on a new one,
    unless they must not be repeated. A command without an answer in time gives up the connection,
    if nothing at all was heard since: its other end may be gone.
    """

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool
        self._unsent: list[_Asked] = []
        self._unanswered: deque[_Asked] = deque()
        self._connection: Connection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._news = 0
        """Grows with each answer, and when a connection is given up."""

    async def execute(
        self, command: Sequence[Word], timeout_s: float, *, repeats: bool = True
    ) -> Any:
        asked = _Asked(command, self._news, 2 if repeats else 1)
        self._queue([asked])
        timer = Deadline(timeout_s, lambda: self._expire(asked))
        try:
            return await asked.answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Ends the connection. Commands under way fail."""
        self._unsent.clear()
        if self._reading is not None:
            reading, self._reading = self._reading, None
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _queue(self, asked: Sequence[_Asked]) -> None:
        if not self._unsent:
            sending = asyncio.get_running_loop().create_task(self._send())
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        self._unsent += asked

    async def _send(self) -> None:
        """Writes all that is not sent yet, once there is a connection."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
            return
        asked, self._unsent = self._unsent, []
        self._unanswered += asked
        for each in asked:
            each.sends_left -= 1
        try:
            await connection.send_packed_command([each.bytes for each in asked], check_health=False)
        except (RedisError, OSError):
            await connection.disconnect(nowait=True)  # whoever reads sees it, and begins anew

    async def _read(self) -> None:
        """Connects, then takes answers until the connection breaks."""
        connection: Connection | None = None
        error: Exception = RedisConnectionError("the connection was given up")
        repeats = True
        try:
            connection = self._connection = await self._pool.get_connection()
            await self._send()
            while True:
                answer = await _answer_of(connection)
                self._news += 1
                self._unanswered.popleft().take(answer)
        except (RedisError, OSError) as reason:
            error, repeats = reason, connection is not None
        finally:
            self._connection = None
            self._lose(error, repeats)
            if connection is not None:
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)

    def _lose(self, error: Exception, repeats: bool) -> None:
        """Sends again what may be, on a new connection; all else fails with `error`."""
        repeats = repeats and self._reading is not None  # it is closed otherwise
        asked = [each for each in (*self._unanswered, *self._unsent) if not each.answer.done()]
        self._unanswered.clear()
        self._unsent = []
        self._reading = None
        again = [each for each in asked if each.sends_left] if repeats else []
        for each in asked:
            if not (repeats and each.sends_left):
                each.take(error)
        if again:
            self._queue(again)

    def _expire(self, asked: _Asked) -> None:
        asked.take(TimeoutError())
        if asked.news == self._news and self._reading is not None:
            self._news += 1
            self._connection = None  # what comes now waits for the next one
            self._reading.cancel()


class ToCluster:
    """See `Commands`. redis-py sends any command a second time if a connection breaks."""

    def __init__(self, client: RedisCluster) -> None:
        self._client: Any = client
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def execute(
        self, command: Sequence[Word], timeout_s: float, *, repeats: bool = True
    ) -> Any:
        del repeats
        async with deadline(timeout_s), self._slots:
            return await self._client.execute_command(*command)

    async def close(self) -> None:
        """Nothing is under way without its caller."""


async def _answer_of(connection: Connection) -> object:
    """The next answer; an error of Redis about one command is one, too."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
