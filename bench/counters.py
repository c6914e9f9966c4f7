"""Is a decision as fast among a million live counters as among a thousand, and what does one take?

10,000 tenants in 40 timezones with 20 limits each; every request meets all 20, with a counter of
its own in each. The stores of all sizes run side by side and are asked in turns.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from bench.main import run
from bench.measure import (
    Durations,
    in_fresh_process,
    in_turns,
    resident_bytes,
    timed,
    used_bytes,
)
from bench.table import Table
from bench.tenants import (
    COUNTERS_PER_TENANT,
    TENANTS,
    USERS,
    RunningClock,
    all_claims,
    policy_of,
    request_of,
)
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy, Tenant
from headgate.core.settlement import Estimate, Usage
from headgate.program.parts import running_store
from headgate.program.settings import StoreSettings
from ratelimit.answers import Admitted
from ratelimit.demand import Claim
from ratelimit.limiter import Limiter
from ratelimit.store.hits import Hit
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from tests.redis_server import PATIENT_S, RedisServer, running_redis

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CALLS = 10_000
_AT_ONCE = 32
_USED = Usage(status=200, prompt=20, completion=40, complete=True)
_HELD = Estimate(tokens=100, prompt=50)


@dataclass(kw_only=True)
class Filled:
    """A store with `counters` live counters, and how fast it decides."""

    name: str
    counters: int
    limiter: Limiter
    bytes_per_counter: int
    reserve: Durations = field(default_factory=Durations)
    settle: Durations = field(default_factory=Durations)
    _asked: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(1))

    async def decide(self, counts: bool) -> None:
        """One request of any user, from its reservation to its settlement."""
        self._asked += 1
        tenant = self._random.randrange(self.counters // COUNTERS_PER_TENANT)
        request = request_of(self._asked, tenant, self._random.randrange(USERS))
        reserving = self.limiter.reserve(request)
        answer = await timed(reserving, self.reserve if counts else None)
        assert isinstance(answer, Admitted), answer
        settling = self.limiter.settle(request.reservation, request.tenant, _USED, _HELD)
        await timed(settling, self.settle if counts else None)


async def measure(sizes: Sequence[int] = SIZES, calls: int = CALLS) -> list[Table]:
    """Both stores at each size: bytes per counter, and times as ratios to the first size's."""
    clock = RunningClock()
    policy = policy_of(max(TENANTS, max(sizes) // COUNTERS_PER_TENANT))
    async with AsyncExitStack() as stack:
        memory, redis = [], []
        for size in sizes:
            store = MemoryStore()
            await fill(store, policy, size, clock.now_s())
            limiter = Limiter(store, lambda: policy, clock)
            taken = in_fresh_process(memory_bytes, size) // size
            memory.append(
                Filled(name="memory", counters=size, limiter=limiter, bytes_per_counter=taken)
            )
        for size in sizes:
            server = stack.enter_context(running_redis())
            taken = await redis_bytes(server, policy, size, clock.now_s()) // size
            settings = StoreSettings(server.url, deadline_s=PATIENT_S)
            metrics = Metrics(CollectorRegistry(), clock)
            shared = await stack.enter_async_context(running_store(settings, clock, metrics))
            limiter = Limiter(shared, lambda: policy, clock)
            redis.append(
                Filled(name="Redis", counters=size, limiter=limiter, bytes_per_counter=taken)
            )
        rows = []
        for filled in (memory, redis):
            await in_turns([store.decide for store in filled], calls)
            rows += [_row(store, filled[0]) for store in filled]
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


async def fill(store: Store, policy: CompiledPolicy, counters: int, now_s: float) -> None:
    """Makes live counters, by the keys that requests will ask for."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def add(tenant: Tenant, claims: tuple[Claim, ...]) -> None:
        hits = [Hit(claim.key, 100, None, _end_s(claim)) for claim in claims]
        try:
            await store.count(tenant.name, hits, now_s)
        finally:
            turns.release()

    async with asyncio.TaskGroup() as tasks:
        for tenant, claims in all_claims(policy, counters // COUNTERS_PER_TENANT, now_s):
            await turns.acquire()
            tasks.create_task(add(tenant, claims))


def memory_bytes(counters: int) -> int:
    """The growth of this process with these counters in memory."""
    clock = RunningClock()
    policy = policy_of(counters // COUNTERS_PER_TENANT)
    asyncio.run(fill(MemoryStore(), policy, COUNTERS_PER_TENANT, clock.now_s()))
    before = resident_bytes()
    store = MemoryStore()
    asyncio.run(fill(store, policy, counters, clock.now_s()))
    return resident_bytes() - before


async def redis_bytes(
    server: RedisServer, policy: CompiledPolicy, counters: int, now_s: float
) -> int:
    """The growth of Redis' memory with these counters, connections not counted."""
    with closing(server.client()) as client:
        before = used_bytes(client)
        store = RedisStore.from_url(server.url, PATIENT_S)
        await fill(store, policy, counters, now_s)
        await store.close()
        assert client.dbsize() == counters
        return used_bytes(client) - before


def _end_s(claim: Claim) -> int:
    assert claim.window is not None
    return claim.window.end_s


_TITLE = "A decision among so many live counters"
_COLUMNS = (
    "store",
    "live counters",
    "bytes per counter",
    "reserve, median",
    "reserve, p99",
    "settle, median",
    "settle, p99",
)
_NOTE = (
    f"{TENANTS:,} tenants in 40 timezones, 20 limits matched by each request. Times are ratios to"
    " the first row of the same store."
)


def _row(store: Filled, first: Filled) -> tuple[str | int | float, ...]:
    return (
        store.name,
        store.counters,
        store.bytes_per_counter,
        store.reserve.median_s / first.reserve.median_s,
        store.reserve.p99_s / first.reserve.p99_s,
        store.settle.median_s / first.settle.median_s,
        store.settle.p99_s / first.settle.p99_s,
    )


if __name__ == "__main__":
    run({"counters": measure})
