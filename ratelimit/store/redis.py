"""The store that replicas share: Redis 6.2 or later, Redis Cluster or Valkey.

Each of `reserve`, `settle` and `count` is one script and one round trip. `names.py` names the keys.

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
from ratelimit.fair.tags import FINISH_KEPT_S, FairDemand, FairStart
from ratelimit.keys import escaped
from ratelimit.store.buckets import BucketLevel
from ratelimit.store.commands import commands_to
from ratelimit.store.deadline import deadline
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.names import BATCHES, REPLICAS, UNANSWERED, VIRTUAL_TIMES, Scope
from ratelimit.store.protocol import (
    DRAINED_KEPT_S,
    SETTLED_KEPT_S,
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
from ratelimit.store.shared import Batch, Exchanged, Told

TIMEOUT_S = 0.5
_PARALLEL = 64
_BATCHES_KEPT_S = 600
"""A replica that has not read its batches for this long will never read them."""
_VIRTUAL_TIMES_KEPT_S = 24 * FINISH_KEPT_S
"""Longer than any finish: a finish without its virtual time would hold its tenant back."""
_MOST_IDS, _IDS_AT_ONCE = 10_000, 1_000
_FAILURES = (TimeoutError, RedisError, RedisClusterException, OSError)
_DECISIONS = (ReserveDecision.REFUSED, ReserveDecision.ADMITTED, ReserveDecision.REPLAYED)
_LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")
"""Digits of a weight that older versions of settle.lua pass by."""
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
        scope = Scope.of(reservation.tenant)
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
        arguments += [len(demands), len(leases)]
        for demand in demands:
            life_s = DRAINED_KEPT_S if demand.drain else demand.expires_at_s - now_s
            arguments += [_text_of(demand.weights), demand.amount, demand.limit]
            arguments += [max(1, _ms(life_s)), int(demand.enforced), demand.drain]
        for lease in leases:
            arguments += [lease.limit, _ms(lease.lease_s), int(lease.enforced)]
        if reservation.fair is not None:
            keys += [scope.finish(reservation.fair.queue), scope.start(reservation.fair.queue)]
            arguments += _of_fair(reservation.fair)
        answer = await self._run("reserve", self._reserve, keys, arguments)
        return _reserved(reservation, answer)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        scope = Scope.of(tenant)
        arguments = [spent.requests, spent.input, spent.cached, spent.output, spent.seconds]
        arguments += [_ms(now_s), _ms(SETTLED_KEPT_S)]
        keys = [scope.record(reservation)]
        outcome, pairs, starts = await self._run("settle", self._settle, keys, arguments)
        used = {scope.bare(key): count for key, count in zip(pairs[::2], pairs[1::2], strict=True)}
        start = FairStart(scope.bare(starts[0]), starts[1]) if starts else None
        return Settled(_OUTCOMES[outcome], used, start)

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        scope = Scope.of(tenant)
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
        scope, now_ms = Scope.of(query.tenant), _ms(query.now_s)
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
            pipeline.zadd(REPLICAS, {replica: now_ms + _ms(life_s)})
            pipeline.zremrangebyscore(REPLICAS, "-inf", now_ms)
            pipeline.pexpire(REPLICAS, _ms(life_s))
            pipeline.zcard(REPLICAS)
            return int((await pipeline.execute())[-1])

    async def withdraw(self, replica: str) -> None:
        async with self._bounded("withdraw"):
            await self._client.execute_command("ZREM", REPLICAS, replica)

    async def exchange(
        self, replica: str, batches: Sequence[Batch], read: Collection[str]
    ) -> Exchanged:
        receivers = sorted({batch.to for batch in batches})
        async with self._bounded("exchange"):
            pipeline: Any = self._client.pipeline(transaction=False)
            for batch in batches:
                pipeline.hset(BATCHES + batch.to, batch.id, batch.text)
            for receiver in receivers:
                pipeline.pexpire(BATCHES + receiver, _ms(_BATCHES_KEPT_S))
            # Asked after the batches are stored: a replica that withdraws later reads them first.
            for receiver in receivers:
                pipeline.zscore(REPLICAS, receiver)
            if read:
                pipeline.hdel(BATCHES + replica, *read)
            pipeline.hgetall(BATCHES + replica)
            answers = await pipeline.execute()
        first = len(batches) + len(receivers)
        pairs = zip(receivers, answers[first:], strict=False)
        return Exchanged(
            tuple(Batch(replica, id.decode(), text.decode()) for id, text in answers[-1].items()),
            frozenset(receiver for receiver, score in pairs if score is None),
        )

    async def exchange_times(self, times: Mapping[str, int]) -> Mapping[str, int]:
        async with self._bounded("exchange_times"):
            pipeline: Any = self._client.pipeline(transaction=False)
            if times:
                pipeline.hset(VIRTUAL_TIMES, mapping=times)
                pipeline.pexpire(VIRTUAL_TIMES, _ms(_VIRTUAL_TIMES_KEPT_S))
            pipeline.hgetall(VIRTUAL_TIMES)
            stored = (await pipeline.execute())[-1]
        return {queue.decode(): int(tag) for queue, tag in stored.items()}

    async def exchange_ids(self, ids: Sequence[str], place: str) -> Told:
        async with self._bounded("exchange_ids"):
            pipeline: Any = self._client.pipeline(transaction=False)
            for id in ids:
                pipeline.xadd(UNANSWERED, {"id": id}, maxlen=_MOST_IDS)
            if ids:
                pipeline.pexpire(UNANSWERED, _ms(SETTLED_KEPT_S))
            pipeline.xrange(UNANSWERED, f"({place}" if place else "-", count=_IDS_AT_ONCE)
            entries = (await pipeline.execute())[-1]
        told = tuple(fields[b"id"].decode() for _, fields in entries)
        return Told(told, entries[-1][0].decode() if entries else place)

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


def _reserved(
    reservation: Reservation, answer: tuple[int, list[int], list[int], list[int], list[int]]
) -> Reserved:
    """The result of reserve.lua, which names counters and leases by their place in KEYS."""
    decision, used, refused, exceeded, starts = answer
    keys = [asked.key for asked in reservation.asked]
    return Reserved(
        decision=_DECISIONS[decision],
        used=dict(zip(keys, used, strict=False)),  # of a replay there is none
        refused=tuple(keys[place] for place in refused),
        exceeded=tuple(keys[place] for place in exceeded),
        start=starts[0] if starts else None,
    )


def _text_of(weights: Weights) -> str:
    """As settle.lua reads them, in the order of `Spent`."""
    text = f"{weights.request} {weights.input} {weights.cached} {weights.output}"
    return f"{text} {str(weights.second).translate(_LETTERS)}" if weights.second else text


def _of_fair(fair: FairDemand) -> list[str | int]:
    """As reserve.lua reads it. The rates are weights of a counter, so that settlements know it."""
    weights = f"0 {fair.rates.input} 0 {fair.rates.output}"
    return [weights, fair.work, fair.virtual_time, _ms(FINISH_KEPT_S)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
