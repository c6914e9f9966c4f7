"""A model that counts under another name meets the limits of that name."""

from prometheus_client import CollectorRegistry

from headgate.core.apis import Api
from headgate.core.metrics import Metrics
from ratelimit.answers import Admitted, Refused, ReserveRequest
from ratelimit.limiter import Limiter
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, limit, policy_with


async def test_a_registered_adapter_meets_the_limits_of_its_base() -> None:
    clock = FakeClock(NOW_S)
    policy = policy_with(limit(2, models=("tiny",)))
    limiter = Limiter(MemoryStore(), lambda: policy, clock)
    metrics = Metrics(CollectorRegistry(), clock)
    bases = {"acme-sql": "tiny"}
    service = RateLimitService(
        limiter, metrics, clock, limited_as=lambda name: bases.get(name, name)
    )

    def request(number: int, model: str) -> ReserveRequest:
        return ReserveRequest(
            reservation=f"r{number}",
            tenant="demo",
            user="alice",
            key="k1",
            model=model,
            api=Api.CHAT,
            tokens=10,
        )

    assert isinstance(await service.reserve(request(1, "acme-sql")), Admitted)
    assert isinstance(await service.reserve(request(2, "tiny")), Admitted)
    assert isinstance(await service.reserve(request(3, "acme-sql")), Refused)
    assert isinstance(await service.reserve(request(4, "other")), Admitted)
