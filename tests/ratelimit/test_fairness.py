"""The limiter gives each request its priority, by the work that its tenant has had."""

from dataclasses import replace

import pytest

from headgate.core.apis import WITH_PRIORITY, Api
from headgate.core.policy import CompiledPolicy, Model
from headgate.core.settlement import Estimate, Usage
from ratelimit.answers import Admitted
from ratelimit.fair.tags import Rates
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Reservation, Reserved, StoreError
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, new_name, policy_with, request

ESTIMATE = Estimate(tokens=500, prompt=100)
ONE = Rates.of_weight(1)
WORK = ONE.work(100, 400)


def fair_policy(*, weight: int | None = 1) -> CompiledPolicy:
    """Tenants `demo` and `other` on one base model, which an adapter shares."""
    policy = policy_with()
    base = Model(
        name="tiny",
        base="tiny",
        served_as="tiny",
        upstream="http://127.0.0.1:8000",
        context_tokens=8192,
        forces_usage=False,
        fairness_floor=0,
    )
    demo = replace(policy.tenants["demo"], weight=weight)
    return replace(
        policy,
        models={"tiny": base, "lora": replace(base, name="lora", adapter="lora")},
        tenants={"demo": demo, "other": replace(demo, name="other")},
    )


class Desk:
    """A limiter on one process's store."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.clock = FakeClock(NOW_S)
        self.limiter = Limiter(MemoryStore(), lambda: policy, self.clock)

    async def priority(
        self, tenant: str = "demo", *, id: str = "", model: str = "tiny", api: Api | None = Api.CHAT
    ) -> int | None:
        asked = request(
            id or new_name("r"), 500, prompt_tokens=100, tenant=tenant, model=model, api=api
        )
        answer = await self.limiter.reserve(asked)
        assert isinstance(answer, Admitted)
        return answer.priority

    async def settle(self, id: str, usage: Usage, tenant: str = "demo") -> None:
        await self.limiter.settle(id, tenant, usage, ESTIMATE)


async def test_a_flood_moves_only_its_own_tenant_back() -> None:
    desk = Desk(fair_policy())

    flood = [await desk.priority() for _ in range(3)]

    assert flood == [0, WORK, 2 * WORK]
    assert await desk.priority("other") == 0


async def test_an_adapter_shares_the_queue_of_its_base_model() -> None:
    desk = Desk(fair_policy())
    await desk.priority()

    assert await desk.priority(model="lora") == WORK


async def test_twice_the_weight_moves_a_tenant_half_as_far() -> None:
    desk = Desk(fair_policy(weight=2))
    await desk.priority()

    assert await desk.priority() == WORK // 2


async def test_what_a_request_did_not_use_comes_back() -> None:
    desk = Desk(fair_policy())
    await desk.priority(id="first")

    await desk.settle("first", Usage(status=200, prompt=100, completion=10, complete=True))

    assert await desk.priority() == ONE.work(100, 10)


async def test_a_newcomer_starts_where_the_others_are_served() -> None:
    desk = Desk(fair_policy())
    for number in range(3):
        await desk.priority(id=f"{number}")
    await desk.settle("2", Usage(status=200, prompt=100, completion=400, complete=True))

    assert await desk.priority("other") == 2 * WORK


async def test_a_request_that_vllm_did_not_serve_says_nothing_about_the_queue() -> None:
    desk = Desk(fair_policy())
    for number in range(3):
        await desk.priority(id=f"{number}")
    await desk.settle("2", Usage(status=503))

    assert await desk.priority("other") == 0


@pytest.mark.parametrize("api", Api)
async def test_only_apis_whose_header_vllm_reads_carry_a_priority(api: Api) -> None:
    priority = await Desk(fair_policy()).priority(api=api)

    assert (priority is not None) == (api in WITH_PRIORITY)


async def test_without_fairness_nothing_has_a_priority() -> None:
    assert await Desk(fair_policy(weight=None)).priority() is None


async def test_a_repeated_call_has_the_same_priority() -> None:
    desk = Desk(fair_policy())
    await desk.priority()

    assert [await desk.priority(id="again"), await desk.priority(id="again")] == [WORK, WORK]


class AwayStore(MemoryStore):
    """A store that does not answer."""

    async def reserve(self, reservation: Reservation) -> Reserved:
        raise StoreError("away")


async def test_without_its_store_a_request_that_meets_no_limit_goes_on() -> None:
    desk = Desk(fair_policy())
    desk.limiter = Limiter(AwayStore(), fair_policy, desk.clock)

    assert await desk.priority() == 0
