"""The service behind a real gRPC server, called as Envoy calls it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import CollectorRegistry

from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.contract import ABSENT
from headgate.core.metrics import Metrics
from headgate.core.policy import Count, Each, Limit
from ratelimit.limiter import Limiter
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Reservation, Reserved, Settled, Spent, Store, StoreError
from ratelimit.store.redis import RedisStore
from ratelimit.store.slices.sliced import SlicedStore
from tests.fakes import FakeClock
from tests.hook_channel import hook_channel
from tests.patience import PATIENCE_S
from tests.ratelimit.builders import NOW_S, limit, policy_with
from tests.ratelimit.calls import reserve, settle
from tests.ratelimit.fleets import Fleet
from tests.redis_server import PATIENT_S, running_redis

PATH = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
REMAINING = "x-ratelimit-remaining-tokens"
OK, OVER_LIMIT = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT


class Proxy:
    """Calls the service over its socket, and reads its metrics."""

    def __init__(self, channel: grpc.aio.Channel, metrics: CollectorRegistry) -> None:
        self._call = channel.unary_unary(PATH, response_deserializer=RateLimitResponse.FromString)
        self._metrics = metrics

    async def __call__(self, message: RateLimitRequest | bytes) -> RateLimitResponse:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        response: RateLimitResponse = await self._call(data, timeout=PATIENCE_S)
        return response

    async def fails(self, message: RateLimitRequest | bytes) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self(message)
        return raised.value.code(), raised.value.details() or ""

    def count(self, name: str, **labels: str) -> float:
        return self._metrics.get_sample_value(f"headgate_{name}", labels) or 0.0


@asynccontextmanager
async def serving(*limits: Limit, store: Store | None = None) -> AsyncIterator[Proxy]:
    clock = FakeClock(NOW_S)
    own = CollectorRegistry()
    metrics = Metrics(own, clock)
    policy = policy_with(*limits)
    held = store.settle_held if isinstance(store, SlicedStore) else None
    limiter = Limiter(store or MemoryStore(), lambda: policy, clock, settle_held=held)
    async with hook_channel(RateLimitService(limiter, metrics, clock).methods()) as channel:
        yield Proxy(channel, own)


def headers(response: RateLimitResponse) -> dict[str, str]:
    return {header.key: header.value for header in response.response_headers_to_add}


async def test_a_request_is_reserved_then_settled_then_the_next_sees_what_is_left() -> None:
    async with serving(limit(1000, Count.TOKENS), limit(10)) as proxy:
        first = await proxy(reserve(500))
        ended = await proxy(settle())
        second = await proxy(reserve(10, reservation="r2"))

        assert [first.overall_code, ended.overall_code, second.overall_code] == [OK] * 3
        assert headers(first)["x-ratelimit-remaining-tokens"] == "500"
        assert headers(second)["x-ratelimit-remaining-tokens"] == "840"
        assert headers(second)["x-ratelimit-remaining-requests"] == "8"
        assert proxy.count("decisions_total", hook="ratelimit", decision="ok") == 2
        assert proxy.count("settlements_total", via="ratelimit", outcome="usage") == 1
        assert proxy.count("hook_seconds_count", hook="ratelimit") == 3


async def test_over_the_limit_the_client_gets_all_it_needs() -> None:
    async with serving(limit(1, each=(Each.USER,))) as proxy:
        await proxy(reserve())
        refused = await proxy(reserve(reservation="r2"))

        assert refused.overall_code == OVER_LIMIT
        assert headers(refused)["retry-after"] == "60"
        assert headers(refused)["x-ratelimit-reset-requests"] == "1m0s"
        assert (
            "1 request per minute for each user" in json.loads(refused.raw_body)["error"]["message"]
        )
        assert (await proxy(reserve(reservation="r3", user="bob"))).overall_code == OK
        decided = proxy.count("decisions_total", hook="ratelimit", decision="rate_limit_exceeded")
        assert decided == 1


async def test_what_a_limit_lets_in_is_demand_for_the_pods_and_what_it_refuses_is_none() -> None:
    async with serving(limit(1000, Count.TOKENS)) as proxy:
        await proxy(reserve(600))
        refused = await proxy(reserve(600, reservation="r2"))

        assert refused.overall_code == OVER_LIMIT
        assert proxy.count("reserved_tokens_total", base="-", version="-") == 600
        assert proxy.count("reserved_requests_total", base="-", version="-") == 1


async def test_settling_twice_a_refused_one_or_nothing_is_ok_and_changes_nothing() -> None:
    async with serving(limit(1000, Count.TOKENS)) as proxy:
        await proxy(reserve(900))
        await proxy(reserve(900, reservation="refused"))
        for call in (settle(), settle(), settle(reservation="refused"), settle(reservation=ABSENT)):
            assert (await proxy(call)).overall_code == OK

        after = await proxy(reserve(1, reservation="next"))
        assert headers(after)["x-ratelimit-remaining-tokens"] == "849"
        outcomes = ("usage", "duplicate", "unknown")
        assert [
            proxy.count("settlements_total", via="ratelimit", outcome=outcome)
            for outcome in outcomes
        ] == [1, 1, 1]


async def test_a_request_held_in_a_slice_is_settled_through_any_replica() -> None:
    rule = limit(100_000, Count.TOKENS, slice=5000)
    fleet = await Fleet.of(2)
    one, other = (replica.store for replica in fleet.replicas)
    async with serving(rule, store=one) as here, serving(rule, store=other) as there:
        answer = await here(reserve(500))
        assert dict(answer.dynamic_metadata) == {"held_by": fleet.replicas[0].name}
        calls = fleet.shared.calls
        for _ in range(2):  # the proxy's call and the access log's
            await there(settle(held_by=fleet.replicas[0].name))
        assert fleet.shared.calls == calls
        await fleet.rest()
        assert there.count("settlements_total", via="ratelimit", outcome="forwarded") == 1
        assert there.count("settlements_total", via="ratelimit", outcome="duplicate") == 1
        assert headers(await here(reserve(50, reservation="r2")))[REMAINING] == "99800"


async def test_a_proxy_that_does_not_say_who_holds_a_request_settles_where_it_is_held() -> None:
    rule = limit(100_000, Count.TOKENS, slice=5000)
    fleet = await Fleet.of(2)
    one, other = (replica.store for replica in fleet.replicas)
    async with serving(rule, store=one) as here, serving(rule, store=other) as there:
        await here(reserve(500))
        await there(settle())
        assert there.count("settlements_total", via="ratelimit", outcome="unknown") == 1
        await here(settle())
        assert here.count("settlements_total", via="ratelimit", outcome="usage") == 1


async def test_an_unknown_tenant_is_refused() -> None:
    async with serving() as proxy:
        assert (await proxy(reserve(tenant="gone"))).overall_code == OVER_LIMIT


async def test_a_call_that_is_not_ours_is_an_error_never_ok(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as proxy:
        for call in (
            RateLimitRequest(),
            RateLimitRequest(domain="headgate"),
            reserve(domain="other"),
            reserve(reservation=ABSENT),
            reserve(tenant=ABSENT),
            reserve(None),
        ):
            code, details = await proxy.fails(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert details
            assert "\n" not in details
        invalid = proxy.count("decisions_total", hook="ratelimit", decision="invalid_descriptor")
        assert invalid == 6
    assert len(caplog.records) == 6


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x02\xff\xfe", b"\x12\xff\xff\xff\xff\x0f"])
async def test_bytes_that_are_no_message_are_an_error_and_the_next_call_works(data: bytes) -> None:
    async with serving() as proxy:
        code, _ = await proxy.fails(data)
        assert code is not grpc.StatusCode.OK
        assert (await proxy(reserve())).overall_code == OK


NASTY = ["a\x00b", "a\nb", "a|b", "a/b", "a/user=b", "{b}", "%2F", "é", "x" * 10_240, " "]


async def test_odd_names_and_huge_estimates_neither_crash_nor_share_a_counter() -> None:
    rule = limit(1, each=(Each.USER, Each.KEY, Each.MODEL))
    with running_redis() as server:
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        async with serving(rule, limit(2**53, Count.TOKENS), store=store) as proxy:
            for number, name in enumerate(NASTY):
                callers = [{"user": name}, {"key": name}, {"model": name}]
                for dimension, caller in enumerate(callers):
                    call = reserve(2**32 - 1, reservation=f"{name}{number}{dimension}", **caller)
                    assert (await proxy(call)).overall_code == OK
            again = reserve(2**64 - 1, reservation="again", user=NASTY[0])
            assert (await proxy(again)).overall_code == OVER_LIMIT
        await store.close()


class BrokenStore(MemoryStore):
    """Answers nothing while it is broken."""

    broken = True

    async def reserve(self, reservation: Reservation) -> Reserved:
        if self.broken:
            raise StoreError("redis: reserve had no answer within 0.25 s")
        return await super().reserve(reservation)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        if self.broken:
            raise StoreError("redis: settle had no answer within 0.25 s")
        return await super().settle(reservation, tenant, spent, now_s)


async def test_a_store_that_does_not_answer_closes_the_door() -> None:
    store = BrokenStore()
    async with serving(limit(10), store=store) as proxy:
        for _ in range(3):
            assert await proxy.fails(reserve()) == (
                grpc.StatusCode.UNAVAILABLE,
                "redis: reserve had no answer within 0.25 s",
            )
        code, _ = await proxy.fails(settle())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert proxy.count("store_errors_total", operation="reserve") == 3
        assert proxy.count("store_errors_total", operation="settle") == 1
        assert proxy.count("decisions_total", hook="ratelimit", decision="store_error") == 3

        store.broken = False
        assert (await proxy(reserve())).overall_code == OK


async def test_what_a_shadow_limit_would_have_refused_is_counted_and_let_in() -> None:
    shadow = limit(100, Count.TOKENS, shadow=True)
    async with serving(limit(3), shadow) as proxy:
        answers = [await proxy(reserve(60, reservation=f"r{number}")) for number in range(4)]

        assert [answer.overall_code for answer in answers] == [OK, OK, OK, OVER_LIMIT]
        assert "x-ratelimit-limit-tokens" not in headers(answers[0])
        assert proxy.count("shadow_refusals_total", tenant="demo", limit=shadow.id) == 2
