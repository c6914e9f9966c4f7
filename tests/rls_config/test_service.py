"""The service behind a real gRPC server, called as Envoy calls it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.metrics import Metrics
from ratelimit.descriptors.service import DescriptorLimits, DescriptorOptions
from ratelimit.descriptors.tree import Domains
from ratelimit.descriptors.wire import BadCallError, decode
from ratelimit.limiter import Limiter
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from tests.fakes import FakeClock
from tests.hook_channel import hook_channel
from tests.ratelimit.builders import NOW_S, limit, policy_with
from tests.ratelimit.calls import reserve
from tests.ratelimit.test_service import Proxy
from tests.redis_server import PATIENT_S, running_redis
from tests.rls_config.builders import Unit, call, descriptor, domains

OK, OVER_LIMIT = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
SHOP = """
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 1, name: each_user}
  - key: pool
    quota_mode: true
    rate_limit: {unit: minute, requests_per_unit: 1}
  - key: trial
    shadow_mode: true
    rate_limit: {unit: minute, requests_per_unit: 1}
"""


@asynccontextmanager
async def serving(
    store: Store,
    clock: FakeClock,
    configured: Domains,
    options: DescriptorOptions | None = None,
) -> AsyncIterator[Proxy]:
    own = CollectorRegistry()
    metrics = Metrics(own, clock)
    policy = policy_with(limit(10))
    limiter = Limiter(store, lambda: policy, clock)
    drop_in = DescriptorLimits(store, lambda: configured, clock, metrics, options)
    service = RateLimitService(limiter, metrics, clock, drop_in)
    async with hook_channel(service.methods()) as channel:
        yield Proxy(channel, own)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_S + 15.5)


@pytest.fixture
async def proxy(clock: FakeClock) -> AsyncIterator[Proxy]:
    async with serving(MemoryStore(), clock, domains(SHOP)) as served:
        yield served


async def test_the_answer_has_every_field_that_envoy_reads(proxy: Proxy) -> None:
    response = await proxy(call(descriptor(("user", "a"))))

    assert MessageToDict(response) == {
        "overallCode": "OK",
        "statuses": [
            {
                "code": "OK",
                "currentLimit": {"name": "each_user", "requestsPerUnit": 1, "unit": "MINUTE"},
                "durationUntilReset": "45s",
            }
        ],
    }
    refused = await proxy(call(descriptor(("user", "a"))))
    assert refused.overall_code == refused.statuses[0].code == OVER_LIMIT


async def test_a_limit_starts_again_with_its_window(proxy: Proxy, clock: FakeClock) -> None:
    message = call(descriptor(("user", "a")))
    codes = [(await proxy(message)).overall_code for _ in range(2)]
    clock.advance(44.4)
    codes.append((await proxy(message)).overall_code)
    clock.advance(0.1)
    codes.append((await proxy(message)).overall_code)
    assert codes == [OK, OVER_LIMIT, OVER_LIMIT, OK]


async def test_our_own_domain_is_answered_by_the_policy(proxy: Proxy) -> None:
    response = await proxy(reserve())
    assert response.statuses[0].current_limit.requests_per_unit == 10
    assert response.response_headers_to_add


async def test_a_domain_that_no_file_configures_has_no_limits(proxy: Proxy) -> None:
    override = descriptor(("user", "a"), override=(0, Unit.SECOND))
    response = await proxy(call(descriptor(("user", "a")), override, domain="other"))
    assert MessageToDict(response) == {
        "overallCode": "OK",
        "statuses": [{"code": "OK"}, {"code": "OK"}],
    }


@pytest.mark.parametrize(
    ("message", "details"),
    [
        (RateLimitRequest(), "rate limit domain must not be empty"),
        (call(domain=""), "rate limit domain must not be empty"),
        (call(), "rate limit descriptor list must not be empty"),
        (call(domain="other"), "rate limit descriptor list must not be empty"),
        (
            call(descriptor(("user", "a"), override=(1, Unit.UNKNOWN))),
            "the limit of a descriptor needs a unit from SECOND to YEAR",
        ),
    ],
)
async def test_a_bad_call_gets_the_error_of_envoyproxy_ratelimit(
    proxy: Proxy, message: RateLimitRequest, details: str
) -> None:
    assert await proxy.fails(message) == (grpc.StatusCode.UNKNOWN, details)
    assert proxy.count("decisions_total", hook="ratelimit", decision="invalid_descriptor") == 1


async def test_an_unknown_unit_is_an_error_and_not_a_limit_of_another_length(
    proxy: Proxy,
) -> None:
    message = call(descriptor(("user", "a"), override=(1, Unit.DAY)))
    data = message.SerializeToString().replace(b"\x08\x01\x10\x04", b"\x08\x01\x10\x63")
    assert RateLimitRequest.FromString(data).descriptors[0].limit.unit == 0x63
    code, _ = await proxy.fails(data)
    assert code is grpc.StatusCode.UNKNOWN


BACKENDS = """
domain: shop
descriptors:
  - key: backend
    value: a
    quota_mode: true
    rate_limit: {unit: minute, requests_per_unit: 1}
    metadata: {service: {name: a, region: eu}, tier: 1}
  - key: backend
    value: b
    quota_mode: true
    rate_limit: {unit: minute, requests_per_unit: 9}
    metadata: {service: {name: b, zone: x}, tier: {}, backup: true}
"""


async def test_the_metadata_is_that_of_the_limits_with_room(clock: FakeClock) -> None:
    a, b = descriptor(("backend", "a")), descriptor(("backend", "b"), hits=0)
    other = descriptor(("user", "a"), ("path", ""), override=(9, Unit.HOUR))
    message = call(a, b, other, hits=2)
    options = DescriptorOptions(has_metadata=True)
    async with serving(MemoryStore(), clock, domains(BACKENDS), options) as proxy:
        roomy = await proxy(call(descriptor(("backend", "a")), b))
        used_up = await proxy(message)

    assert MessageToDict(roomy.dynamic_metadata) == {
        "domain": "shop",
        "descriptors": [{"entries": ["backend=a"]}, {"entries": ["backend=b"], "hitsAddend": 0}],
        "metadata": {
            "service": {"name": "a", "region": "eu", "zone": "x"},
            "tier": 1,
            "backup": True,
        },
    }
    assert [status.code for status in used_up.statuses] == [OVER_LIMIT, OK, OK]
    assert used_up.overall_code == OK
    assert MessageToDict(used_up.dynamic_metadata) == {
        "domain": "shop",
        "descriptors": [
            {"entries": ["backend=a"]},
            {"entries": ["backend=b"], "hitsAddend": 0},
            {"entries": ["user=a", "path="], "limit": "requests_per_unit:9 unit:HOUR"},
        ],
        "hitsAddend": 2,
        "metadata": {"service": {"name": "b", "zone": "x"}, "tier": {}, "backup": True},
    }


async def test_without_the_option_there_is_no_metadata(clock: FakeClock) -> None:
    async with serving(MemoryStore(), clock, domains(BACKENDS)) as proxy:
        for _ in range(2):
            answer = await proxy(call(descriptor(("backend", "a"))))
            assert not answer.HasField("dynamic_metadata")


async def test_a_charge_that_does_not_fit_is_logged_once_for_each_domain(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    text = "domain: shop\ndescriptors:\n- {key: user, rate_limit: {unit: day, "
    configured = domains(text + "requests_per_unit: 100}}\n")
    user = ("user", "a")
    async with serving(MemoryStore(), clock, configured) as proxy:
        await proxy(call(descriptor(user, hits=90)))
        assert not caplog.messages
        for _ in range(2):
            assert (await proxy(call(descriptor(user, hits=20)))).overall_code == OVER_LIMIT
    assert caplog.messages == [
        "domain shop: 20 hits were refused and not counted, as the limit user had 10 remaining."
        " If Envoy charges at the end of a stream, set --ratelimit-count-refused:"
        " otherwise such charges are lost."
    ]


@pytest.mark.parametrize("charge", [(101, True), (1, False)])
async def test_a_charge_that_is_counted_or_finds_nothing_left_is_not_logged(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, charge: tuple[int, bool]
) -> None:
    hits, counts_refused = charge
    text = "domain: shop\ndescriptors:\n- {key: user, rate_limit: {unit: day, "
    configured = domains(text + "requests_per_unit: 100}}\n")
    options = DescriptorOptions(counts_refused=counts_refused)
    async with serving(MemoryStore(), clock, configured, options) as proxy:
        for amount in (100, hits):
            await proxy(call(descriptor(("user", "a"), hits=amount)))
    assert not caplog.messages


async def test_hits_are_counted_in_metrics_and_those_near_the_limit_too(clock: FakeClock) -> None:
    text = "domain: shop\ndescriptors:\n- {key: user, rate_limit: {unit: day, "
    configured = domains(text + "requests_per_unit: 10}}\n")
    async with serving(MemoryStore(), clock, configured) as proxy:
        for hits in (7, 2, 0, 3, 1):
            await proxy(call(descriptor(("user", "a"), hits=hits)))
        await proxy(call(descriptor(("user", "a"), hits=4, gives_back=True)))

        def hits_of(outcome: str) -> float:
            return proxy.count(
                "descriptor_hits_total", domain="shop", limit="user", outcome=outcome
            )

        assert (hits_of("ok"), hits_of("over_limit")) == (10, 3)
        near = proxy.count("descriptor_near_limit_hits_total", domain="shop", limit="user")
        assert near == 1 + 1 + 1


async def test_every_descriptor_is_counted_by_the_limit_that_it_met(proxy: Proxy) -> None:
    for _ in range(2):
        for key in ("user", "pool", "trial", "nobody"):
            await proxy(call(descriptor((key, "x"))))
    await proxy(call(descriptor(("user", "x"), override=(1, Unit.DAY))))
    await proxy(call(descriptor(("user", "x")), domain="x" * 50))

    def count(limit_id: str, outcome: str, domain: str = "shop") -> float:
        return proxy.count("descriptors_total", domain=domain, limit=limit_id, outcome=outcome)

    assert [count(key, "ok") for key in ("user", "pool", "trial", "override")] == [1] * 4
    assert count("user", "over_limit") == 1
    assert count("pool", "quota_over_limit") == 1
    assert count("trial", "shadow_over_limit") == 1
    assert count("-", "no_limit") == 2
    assert count("-", "no_limit", "-") == 1
    assert proxy.count("decisions_total", hook="ratelimit", decision="rate_limit_exceeded") == 2


NASTY = [
    "a\x00b",
    "a\nb",
    "a_b",
    "a/user=b",
    "a|b",
    "{b}",
    "%2F",
    "*",
    "é",
    "x" * 10_240,
    "x" * 10_239 + "y",
    " ",
    "",
]


async def test_odd_values_neither_crash_nor_share_a_counter(clock: FakeClock) -> None:
    with running_redis() as server:
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        async with serving(store, clock, domains(SHOP)) as proxy:
            for expected in (OK, OVER_LIMIT):
                for value in NASTY:
                    response = await proxy(call(descriptor(("user", value))))
                    assert response.overall_code == expected, value
            for name in NASTY:
                odd = descriptor((name, name))
                assert (await proxy(call(odd, domain=name or "-"))).overall_code == OK
        with server.client() as client:
            assert max(len(key) for key in client.scan_iter()) < 300
        await store.close()


async def test_a_domain_shares_no_counters_with_a_tenant_of_its_name(clock: FakeClock) -> None:
    store = MemoryStore()
    async with serving(store, clock, domains(SHOP)) as proxy:
        await proxy(call(descriptor(("user", "a"))))
    [(scope, _)] = store._counters
    assert scope == "domain/shop"


async def test_a_store_that_does_not_answer_is_an_error_that_envoy_decides_on(
    clock: FakeClock,
) -> None:
    with running_redis() as server:
        store = RedisStore.from_url(server.url)
        async with serving(store, clock, domains(SHOP)) as proxy:
            server.stop()
            for _ in range(2):
                code, _ = await proxy.fails(call(descriptor(("user", "a"))))
                assert code is grpc.StatusCode.UNAVAILABLE
            assert (await proxy(call(descriptor(("nobody", "a"))))).overall_code == OK
            assert proxy.count("store_errors_total", operation="count") == 2
        await store.close()


@given(st.binary(max_size=200))
def test_no_bytes_cause_more_than_a_refusal(data: bytes) -> None:
    try:
        decode(RateLimitRequest.FromString(data))
    except (DecodeError, BadCallError):
        return
