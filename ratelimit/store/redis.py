"""The store that replicas share: Redis 6.2 or later, Redis Cluster or Valkey.

Each of `reserve`, `settle` and `count` is one script and one round trip. All keys of a tenant
share a hash tag, so that a script finds them on one node of a cluster:

    {hg:TENANT}r:RESERVATION   record   hash
    {hg:TENANT}c:KEY           counter  string
    {hg:TENANT}b:KEY           bucket   string: its level, and the time of that
    {hg:TENANT}l:KEY           lease    sorted set
    hg:replicas                         sorted set: replica -> end of its life by Redis' clock
    hg:post:REPLICA            letters  hash: letter's id -> text

Every key has a time to live, counted by Redis; what has ended is decided by the caller's clock.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from headgate.core.redis_client import redis_client
from ratelimit.keys import escaped
from ratelimit.store.buckets import Level
from ratelimit.store.protocol import (
    DRAINED_KEPT_S,
    SETTLED_KEPT_S,
    Counted,
    Decision,
    Exchanged,
    Hit,
    Letter,
    Outcome,
    Reservation,
    Reserved,
    Settled,
    Spent,
    StoreError,
    Weights,
)
from ratelimit.store.protocol import to_ms as _ms

TIMEOUT_S = 0.05
_PARALLEL = 64
_REPLICAS = "hg:replicas"
_POST = "hg:post:"
_LETTERS_KEPT_S = 600
"""A replica that has not read its letters for this long reads them no more."""
_LAST_LOOKS = 3
_DECISIONS = (Decision.REFUSED, Decision.ADMITTED, Decision.REPLAYED)
_OUTCOMES = (Outcome.UNKNOWN, Outcome.SETTLED, Outcome.DUPLICATE)


class RedisStore:
    """See `Store`. Connects at the first call, so that starting needs no Redis.

    `timeout_s` bounds each call as a whole: waiting for a connection, connecting, answer.
    """

    def __init__(self, client: "Redis | RedisCluster", timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._reserve = _Script.load("reserve.lua")
        self._settle = _Script.load("settle.lua")
        self._count = _Script.load("count.lua")

    @classmethod
    def from_url(cls, url: str, timeout_s: float = TIMEOUT_S) -> "RedisStore":
        """A store for a URL that `redis_client` takes. Raises OperatorError for any other."""
        return cls(redis_client(url), timeout_s)

    async def reserve(self, reservation: Reservation) -> Reserved:
        scope = _Scope.of(reservation.tenant)
        demands, leases = reservation.demands, reservation.leases
        keys = [scope.record(reservation.id)]
        keys += [scope.counter(demand.key, demand.drain) for demand in demands]
        keys += [scope.lease(lease.key) for lease in leases]
        now_s = reservation.now_s
        arguments: list[str | int] = [
            escaped(reservation.id),
            _ms(now_s),
            _ms(reservation.hold_s),
        ]
        arguments.append(len(demands))
        for demand in demands:
            life_s = DRAINED_KEPT_S if demand.drain else demand.expires_at_s - now_s
            arguments += [_written(demand.weights), demand.amount, demand.limit]
            arguments += [max(1, _ms(life_s)), int(demand.enforced), demand.drain]
        for lease in leases:
            arguments += [lease.limit, _ms(lease.lease_s), int(lease.enforced)]
        async with self._bounded("reserve"):
            answer = await self._run(self._reserve, keys, arguments)
        decision, used, refused, exceeded = answer
        return Reserved(_DECISIONS[decision], tuple(used), tuple(refused), tuple(exceeded))

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        scope = _Scope.of(tenant)
        arguments = [spent.requests, spent.input, spent.cached, spent.output]
        arguments += [_ms(now_s), _ms(SETTLED_KEPT_S)]
        async with self._bounded("settle"):
            outcome, pairs = await self._run(self._settle, [scope.record(reservation)], arguments)
        used = {scope.bare(key): count for key, count in zip(pairs[::2], pairs[1::2], strict=True)}
        return Settled(_OUTCOMES[outcome], used)

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> Counted:
        scope = _Scope.of(tenant)
        arguments: list[str | int] = []
        for hit in hits:
            limit = "" if hit.limit is None else hit.limit
            arguments += [hit.amount, limit, max(1, _ms(hit.expires_at_s - now_s))]
        keys = [scope.counter(hit.key) for hit in hits]
        async with self._bounded("count"):
            used, refused = await self._run(self._count, keys, arguments)
        return Counted(tuple(used), tuple(refused))

    async def peek(
        self,
        tenant: str,
        counters: Sequence[str],
        leases: Sequence[str],
        now_s: float,
        drains: Mapping[str, int] = {},
    ) -> tuple[int, ...]:
        scope = _Scope.of(tenant)
        async with self._bounded("peek"):
            pipeline: Any = self._client.pipeline(transaction=False)
            for key in counters:
                pipeline.get(scope.counter(key, drains.get(key, 0)))
            for key in leases:
                pipeline.zcount(scope.lease(key), f"({_ms(now_s)}", "+inf")
            found = await pipeline.execute()
        for place, key in enumerate(counters):
            if found[place] is not None and key in drains:
                level = Level(*map(int, found[place].split()))
                found[place] = level.drained(drains[key], _ms(now_s)).amount
        return tuple(int(count or 0) for count in found)

    async def ping(self) -> None:
        """Returns when Redis answers. Raises StoreError."""
        async with self._bounded("ping"):
            await self._client.execute_command("PING")

    async def announce(self, replica: str, life_s: float) -> int:
        async with self._bounded("announce"):
            now_s, now_us = await self._client.execute_command("TIME")
            now_ms = now_s * 1000 + now_us // 1000
            pipeline: Any = self._client.pipeline(transaction=True)
            pipeline.zadd(_REPLICAS, {replica: now_ms + _ms(life_s)})
            pipeline.zremrangebyscore(_REPLICAS, "-inf", now_ms)
            pipeline.pexpire(_REPLICAS, _ms(life_s))
            pipeline.zcard(_REPLICAS)
            return int((await pipeline.execute())[-1])

    async def withdraw(self, replica: str) -> None:
        async with self._bounded("withdraw"):
            await self._client.execute_command("ZREM", _REPLICAS, replica)

    async def exchange(
        self, replica: str, letters: Sequence[Letter], read: Collection[str]
    ) -> Exchanged:
        addressees = sorted({letter.to for letter in letters})
        async with self._bounded("exchange"):
            pipeline: Any = self._client.pipeline(transaction=False)
            for letter in letters:
                pipeline.hset(_POST + letter.to, letter.id, letter.text)
            for addressee in addressees:
                pipeline.pexpire(_POST + addressee, _ms(_LETTERS_KEPT_S))
            # Asked when the letters are there: who withdraws after that finds them at its end.
            for addressee in addressees:
                pipeline.zscore(_REPLICAS, addressee)
            if read:
                pipeline.hdel(_POST + replica, *read)
            pipeline.hgetall(_POST + replica)
            answers = await pipeline.execute()
        first = len(letters) + len(addressees)
        pairs = zip(addressees, answers[first:], strict=False)
        return Exchanged(
            tuple(Letter(replica, id.decode(), text.decode()) for id, text in answers[-1].items()),
            frozenset(addressee for addressee, score in pairs if score is None),
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()

    async def _run(self, script: "_Script", keys: list[str], arguments: Sequence[str | int]) -> Any:
        """One round trip; one more when Redis has lost its scripts (restart, SCRIPT FLUSH)."""
        client: Any = self._client
        try:
            return await client.evalsha(script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(script.text, len(keys), *keys, *arguments)

    @asynccontextmanager
    async def _bounded(self, operation: str) -> AsyncIterator[None]:
        """Ends what takes too long, and turns whatever goes wrong into a StoreError."""
        try:
            async with _deadline(self._timeout_s), self._slots:
                yield
        except TimeoutError as error:
            raise StoreError(
                f"redis: {operation} had no answer within {self._timeout_s:g} s"
            ) from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise StoreError(f"redis: {operation} failed: {_one_line(error)}") from error


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Like asyncio.timeout, but an answer that has arrived in time is read in time.

    When this process was busy for longer than the deadline, timer and answer are both due: a
    few more rounds of the loop let the answer win. Else every burst would look like an outage.
    """
    loop = asyncio.get_running_loop()
    due: asyncio.Handle
    async with asyncio.timeout(None) as bound:

        def look(rounds: int) -> None:
            nonlocal due
            if rounds:
                due = loop.call_soon(look, rounds - 1)
            else:
                bound.reschedule(loop.time())

        due = loop.call_later(seconds, look, _LAST_LOOKS)
        try:
            yield
        finally:
            due.cancel()


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> "_Script":
        text = files("ratelimit.store").joinpath(name).read_text()
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class _Scope:
    """The key names of one tenant. The braces hold an escaped name: no name breaks out of them."""

    tag: str

    @classmethod
    def of(cls, tenant: str) -> "_Scope":
        return cls(f"{{hg:{escaped(tenant)}}}")

    def record(self, reservation: str) -> str:
        return f"{self.tag}r:{escaped(reservation)}"

    def counter(self, key: str, drain: int = 0) -> str:
        """A counter, or a bucket if it drains."""
        return f"{self.tag}{'b' if drain else 'c'}:{key}"

    def lease(self, key: str) -> str:
        return f"{self.tag}l:{key}"

    def bare(self, full_key: bytes) -> str:
        """The key as it was asked for, of a counter or a lease."""
        return full_key.decode()[len(self.tag) + 2 :]


def _written(weights: Weights) -> str:
    """As settle.lua reads them, in the order of `Spent`."""
    return f"{weights.request} {weights.input} {weights.cached} {weights.output}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
