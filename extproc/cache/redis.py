"""Answers that replicas share in Redis, by connections of their own.

The limits' connection stays free of large values. After a call that failed, Redis is left alone for
a moment: requests then go to the model without a wait.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from extproc.cache.answers import Absence, AnswersAwayError, Found, Keep, Kept, KeptAnswer
from headgate.core.clock import Clock
from headgate.core.redis_client import redis_client

PAUSE_S = 1.0
"""How long Redis is not asked after a call that failed."""
PURGED_AT_ONCE = 500
_PARALLEL = 32
"""Calls in parallel. A client has 100 connections, and a call that needs one more fails."""
_GENERATION = 32
"""The digits of a generation, which begin each kept answer."""
_Script: TypeAlias = Callable[..., Awaitable[Any]]
_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
T = TypeVar("T")


class RedisAnswers:
    """Keeps answers in the Redis at `url`. Each call takes at most `deadline_s`."""

    def __init__(
        self, url: str, deadline_s: float, clock: Clock, password_file: Path | None = None
    ) -> None:
        self._client = redis_client(url, password_file)
        self._keep, self._purge = (
            cast("_Script", self._client.register_script(_source(name)))
            for name in ("keep.lua", "purge.lua")
        )
        self._deadline_s = deadline_s
        self._clock = clock
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._paused_until_s = 0.0

    async def find(self, tenant: str, key: str) -> Found:
        """The answer that is kept under a key of the tenant."""
        names = [_name(tenant, "generation"), _name(tenant, f"answer:{key}")]
        values = await self._bounded(lambda: self._client.mget(names))
        if values is None:
            return Found(Absence.AWAY)
        generation, kept = cast("list[bytes | None]", values)  # nothing is decoded
        known = "" if generation is None else generation.decode()
        if generation is None or kept is None or kept[:_GENERATION] != generation:
            return Found(Absence.ABSENT, known)
        try:
            return Found(_READER.decode(kept[_GENERATION:]), known)
        except msgspec.DecodeError:  # written by another version
            return Found(Absence.ABSENT, known)

    async def keep(self, answer: Keep) -> Kept:
        """Keeps an answer. The tenant's oldest answers make room for it."""
        tenant = answer.tenant
        names = [
            *(_name(tenant, part) for part in ("generation", "index", "sizes")),
            _name(tenant, f"answer:{answer.key}"),
        ]
        arguments = [
            answer.generation,
            uuid.uuid4().hex,
            int(self._clock.now_s() * 1000),
            answer.ttl_s * 1000,
            answer.max_bytes,
            answer.key,
            _WRITER.encode(answer.answer),
            _name(tenant, "answer:"),
        ]
        said = await self._bounded(lambda: self._keep(keys=names, args=arguments))
        return Kept.FAILED if said is None else Kept(said.decode())

    async def purge(self, tenant: str) -> int:
        """Forgets all answers of a tenant, and returns how many. Raises AnswersAwayError.

        From the first call on none of them is found; then they are taken out, some at a time.
        """
        await self._asked(lambda: self._client.set(_name(tenant, "generation"), uuid.uuid4().hex))
        names = [_name(tenant, "index"), _name(tenant, "sizes")]
        arguments = [PURGED_AT_ONCE, _name(tenant, "answer:")]
        purged = 0
        while taken := await self._asked(lambda: self._purge(keys=names, args=arguments)):
            purged += int(taken)
        return purged

    def pause(self) -> None:
        """Asks Redis nothing for a moment."""
        self._paused_until_s = self._clock.now_s() + PAUSE_S

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _bounded(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """The result of a call; None if Redis is away, slow, or has no memory left."""
        if self._clock.now_s() < self._paused_until_s:
            return None
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                return await call()
        except ResponseError:  # it answers: it has no memory left, or does not know a command
            return None
        except _ERRORS:
            self.pause()
            return None

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await call()
        except _ERRORS as error:
            raise AnswersAwayError(f"Redis does not answer: {error!r}") from error


def _name(tenant: str, part: str) -> str:
    """The name in Redis. All names of a tenant are in one slot of a cluster."""
    return f"hg:cache:{{{tenant}}}:{part}"


def _source(name: str) -> str:
    return files("extproc.cache").joinpath(name).read_text(encoding="utf-8")


_READER = msgspec.msgpack.Decoder(KeptAnswer)
_WRITER = msgspec.msgpack.Encoder()
