"""The store that replicas share: Redis 6.2 or later, Redis Cluster or Valkey.

Each of `reserve`, `settle` and `count` is one script and one round trip. All keys of a tenant
share a hash tag, so that a script finds them on the same node of a cluster.

- A record is a hash: `{hg:TENANT}r:RESERVATION`.
- A counter is a string: `{hg:TENANT}c:KEY`.
- A bucket is a string with its level and the time of that: `{hg:TENANT}b:KEY`.
- A lease is a member of a sorted set: `{hg:TENANT}l:KEY`.
- The replicas are a sorted set, by the end of their life on Redis' clock: `hg:replicas`.
- The batches for a replica are a hash, by their ids: `hg:post:REPLICA`.

Every key has a time to live by Redis' clock; the caller's clock decides what has ended.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from pathlib import Path
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from headgate.core.redis_client import redis_client
from ratelimit.keys import escaped, escaped_name
from ratelimit.store.buckets import BucketLevel
from ratelimit.store.commands import commands_to
from ratelimit.store.deadline import deadline
from ratelimit.store.protocol import (
    DRAINED_KEPT_S,
    SETTLED_KEPT_S,
    CountedHits,
    Hit,
    PeekQuery,
    Reservation,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Spent,
    StoreError,
    Weights,
)
from ratelimit.store.protocol import to_ms as _ms
from ratelimit.store.shared import Batch, Exchanged

TIMEOUT_S = 0.5
_PARALLEL = 64
_REPLICAS = "hg:replicas"
_BATCHES = "hg:post:"
"""The keys of forwarded settlements. Replicas of every version share them: the word stays."""
_BATCHES_KEPT_S = 600
"""A replica that has not read its batches for this long will never read them."""
_FAILURES = (TimeoutError, RedisError, RedisClusterException, OSError)
_DECISIONS = (ReserveDecision.REFUSED, ReserveDecision.ADMITTED, ReserveDecision.REPLAYED)
_OUTCOMES = (SettleOutcome.UNKNOWN, SettleOutcome.SETTLED, SettleOutcome.DUPLICATE)


class RedisStore:
    """See `Store`. Connects at the first call, so that starting needs no Redis.

    `timeout_s` bounds each command: waiting for a connection, connecting, answer.
    """

    def __init__(self, client: "Redis | RedisCluster", timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._commands = commands_to(client)
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._reserve = _Script.load("numbers.lua", "bucket.lua", "reserve.lua")
        self._settle = _Script.load("numbers.lua", "bucket.lua", "settle.lua")
        self._count = _Script.load("numbers.lua", "count.lua")

    @classmethod
    def from_url(
        cls, url: str, timeout_s: float = TIMEOUT_S, password_file: Path | None = None
    ) -> "RedisStore":
        """A store for a URL that `redis_client` takes. Raises OperatorError for any other."""
        return cls(redis_client(url, password_file), timeout_s)

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
            arguments += [_text_of(demand.weights), demand.amount, demand.limit]
            arguments += [max(1, _ms(life_s)), int(demand.enforced), demand.drain]
        for lease in leases:
            arguments += [lease.limit, _ms(lease.lease_s), int(lease.enforced)]
        answer = await self._run("reserve", self._reserve, keys, arguments)
        return _reserved(reservation, *answer)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        scope = _Scope.of(tenant)
        arguments = [spent.requests, spent.input, spent.cached, spent.output]
        arguments += [_ms(now_s), _ms(SETTLED_KEPT_S)]
        keys = [scope.record(reservation)]
        outcome, pairs = await self._run("settle", self._settle, keys, arguments)
        used = {scope.bare(key): count for key, count in zip(pairs[::2], pairs[1::2], strict=True)}
        return Settled(_OUTCOMES[outcome], used)

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        scope = _Scope.of(tenant)
        arguments: list[str | int] = []
        for hit in hits:
            limit = "" if hit.limit is None else hit.limit
            life_ms = max(1, _ms(hit.expires_at_s - now_s))
            arguments += [hit.amount, limit, life_ms, int(hit.quota)]
        keys = [scope.counter(hit.key) for hit in hits]
        # A count that is sent again counts again.
        used, refused = await self._run("count", self._count, keys, arguments, repeats=False)
        return CountedHits(tuple(used), tuple(refused))

    async def peek(self, query: PeekQuery) -> Mapping[str, int]:
        scope, now_ms = _Scope.of(query.tenant), _ms(query.now_s)
        async with self._bounded("peek"):
            pipeline: Any = self._client.pipeline(transaction=False)
            for key in query.counters:
                pipeline.get(scope.counter(key, query.drains.get(key, 0)))
            for key in query.leases:
                pipeline.zcount(scope.lease(key), f"({now_ms}", "+inf")
            values = await pipeline.execute()
        used = {}
        for key, value in zip((*query.counters, *query.leases), values, strict=True):
            if value is not None and key in query.drains:
                level = BucketLevel(*map(int, value.split()))
                used[key] = level.drained(query.drains[key], now_ms).amount
            else:
                used[key] = int(value or 0)
        return used

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
        self, replica: str, batches: Sequence[Batch], read: Collection[str]
    ) -> Exchanged:
        receivers = sorted({batch.to for batch in batches})
        async with self._bounded("exchange"):
            pipeline: Any = self._client.pipeline(transaction=False)
            for batch in batches:
                pipeline.hset(_BATCHES + batch.to, batch.id, batch.text)
            for receiver in receivers:
                pipeline.pexpire(_BATCHES + receiver, _ms(_BATCHES_KEPT_S))
            # Asked after the batches are stored: a replica that withdraws later reads them first.
            for receiver in receivers:
                pipeline.zscore(_REPLICAS, receiver)
            if read:
                pipeline.hdel(_BATCHES + replica, *read)
            pipeline.hgetall(_BATCHES + replica)
            answers = await pipeline.execute()
        first = len(batches) + len(receivers)
        pairs = zip(receivers, answers[first:], strict=False)
        return Exchanged(
            tuple(Batch(replica, id.decode(), text.decode()) for id, text in answers[-1].items()),
            frozenset(receiver for receiver, score in pairs if score is None),
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._commands.close()
        await self._client.aclose()

    async def _run(
        self,
        operation: str,
        script: "_Script",
        keys: Sequence[str],
        arguments: Sequence[str | int],
        *,
        repeats: bool = True,
    ) -> Any:
        """One round trip; one more when Redis has lost its scripts (restart, SCRIPT FLUSH)."""
        rest = (len(keys), *keys, *arguments)
        execute, timeout_s = self._commands.execute, self._timeout_s
        try:
            try:
                return await execute(("EVALSHA", script.sha, *rest), timeout_s, repeats=repeats)
            except NoScriptError:
                return await execute(("EVAL", script.text, *rest), timeout_s, repeats=repeats)
        except _FAILURES as error:
            raise self._failed(operation, error) from error

    @asynccontextmanager
    async def _bounded(self, operation: str) -> AsyncIterator[None]:
        """Ends a call that takes too long, and turns every failure into a StoreError."""
        try:
            async with deadline(self._timeout_s), self._slots:
                yield
        except _FAILURES as error:
            raise self._failed(operation, error) from error

    def _failed(self, operation: str, error: Exception) -> StoreError:
        if isinstance(error, TimeoutError):
            return StoreError(f"redis: {operation} had no answer within {self._timeout_s:g} s")
        return StoreError(f"redis: {operation} failed: {_one_line(error)}")


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str

    @classmethod
    def load(cls, *names: str) -> "_Script":
        """The script that these files are together."""
        folder = files("ratelimit.store")
        text = "\n".join(folder.joinpath(name).read_text() for name in names)
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class _Scope:
    """The key names of one tenant. The braces hold an escaped name: no name can break out."""

    tag: str

    @classmethod
    def of(cls, tenant: str) -> "_Scope":
        return cls(f"{{hg:{escaped_name(tenant)}}}")

    def record(self, reservation: str) -> str:
        return f"{self.tag}r:{escaped(reservation)}"

    def counter(self, key: str, drain: int = 0) -> str:
        """A counter, or a bucket if it drains."""
        return f"{self.tag}{'b' if drain else 'c'}:{key}"

    def lease(self, key: str) -> str:
        return f"{self.tag}l:{key}"

    def bare(self, full_key: bytes) -> str:
        """The key of a counter or a lease as the caller knows it."""
        return full_key.decode()[len(self.tag) + 2 :]


def _reserved(
    reservation: Reservation,
    decision: int,
    used: Sequence[int],
    refused: Sequence[int],
    exceeded: Sequence[int],
) -> Reserved:
    """The result of reserve.lua, which names counters and leases by their place in KEYS."""
    keys = [asked.key for asked in reservation.asked]
    return Reserved(
        decision=_DECISIONS[decision],
        used=dict(zip(keys, used, strict=False)),  # of a replay there is none
        refused=tuple(keys[place] for place in refused),
        exceeded=tuple(keys[place] for place in exceeded),
    )


def _text_of(weights: Weights) -> str:
    """As settle.lua reads them, in the order of `Spent`."""
    return f"{weights.request} {weights.input} {weights.cached} {weights.output}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
