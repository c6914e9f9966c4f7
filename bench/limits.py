"""What does each more limit cost that a request meets: in time, and in bytes while it is held?"""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

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
from bench.tenants import RunningClock, policy_of, request_of, tenant_name
from headgate.core.settlement import Estimate, Usage
from ratelimit.answers import Admitted
from ratelimit.demand import Subject, claims_of, reservation_of
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from tests.redis_server import PATIENT_S, running_redis

MATCHED = (1, 5, 20)
CALLS = 10_000
HELD = 10_000
_USED = Usage(status=200, prompt=20, completion=40, complete=True)
_ESTIMATE = Estimate(tokens=100, prompt=50)


@dataclass(kw_only=True)
class Requests:
    """Requests of ten tenants that meet `limits` limits each."""

    limits: int
    limiter: Limiter
    reserve: Durations = field(default_factory=Durations)
    settle: Durations = field(default_factory=Durations)
    _asked: int = 0

    async def decide(self, counts: bool) -> None:
        """One request, from its reservation to its settlement."""
        self._asked += 1
        request = request_of(self.limits * 10**9 + self._asked, self._asked % 10, 0)
        reserving = self.limiter.reserve(request)
        answer = await timed(reserving, self.reserve if counts else None)
        assert isinstance(answer, Admitted), answer
        settling = self.limiter.settle(request.reservation, request.tenant, _USED, _ESTIMATE)
        await timed(settling, self.settle if counts else None)


async def measure(
    matched: Sequence[int] = MATCHED, calls: int = CALLS, held: int = HELD
) -> list[Table]:
    """Both stores for each number of limits; times as ratios to the first."""
    rows: list[tuple[str | int | float, ...]] = []
    with running_redis() as server:
        shared = RedisStore.from_url(server.url, PATIENT_S)
        for name, store in (("memory", MemoryStore()), ("Redis", shared)):
            requests = [_requests(limits, store) for limits in matched]
            await in_turns([each.decide for each in requests], calls)
            first = requests[0]
            for each in requests:
                if name == "memory":
                    taken = in_fresh_process(memory_bytes, each.limits, held)
                else:
                    taken = await redis_bytes(each.limits, held)
                reserve = each.reserve.median_s / first.reserve.median_s
                settle = each.settle.median_s / first.settle.median_s
                rows.append((name, each.limits, reserve, settle, taken // held))
        await shared.close()
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


def _requests(limits: int, store: Store) -> Requests:
    clock = RunningClock()
    policy = policy_of(10, limits)
    return Requests(limits=limits, limiter=Limiter(store, lambda: policy, clock))


def memory_bytes(limits: int, held: int) -> int:
    """The growth of this process when it holds `held` reservations in memory."""
    asyncio.run(hold(MemoryStore(), limits, 10))
    before = resident_bytes()
    store = MemoryStore()
    asyncio.run(hold(store, limits, held))
    return resident_bytes() - before


async def redis_bytes(limits: int, held: int) -> int:
    """The growth of Redis' memory with `held` reservations, beside their counters."""
    with running_redis() as server, closing(server.client()) as client:
        store = RedisStore.from_url(server.url, PATIENT_S)
        await hold(store, limits, 10)
        before = used_bytes(client)
        await hold(store, limits, held)
        grown = used_bytes(client) - before
        await store.close()
        return grown


async def hold(store: Store, limits: int, reservations: int) -> None:
    """Makes this number of reservations that are not settled."""
    tenant = policy_of(1, limits).tenants[tenant_name(0)]
    now_s = RunningClock().now_s()
    for number in range(reservations):
        request = request_of(reservations + number, 0, 0)
        subject = Subject(request.tenant, request.user, request.key, request.model)
        claims = claims_of(tenant, subject, now_s)
        await store.reserve(
            reservation_of(request.reservation, request.tenant, claims, request.tokens, now_s)
        )


_TITLE = "A decision that meets so many limits at once"
_COLUMNS = ("store", "limits", "reserve, median", "settle, median", "bytes per reservation held")
_NOTE = (
    "Times are ratios to the first row of the same store. A settled reservation takes a small part"
    " of the bytes, for two minutes."
)


if __name__ == "__main__":
    run({"limits": measure})
