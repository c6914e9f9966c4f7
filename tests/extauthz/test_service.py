"""Check over a real gRPC connection."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from extauthz.failures import FailureLimit
from extauthz.service import Authorization
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from tests.extauthz.builders import KEY, POLICY, NoTokens, check_request
from tests.fakes import FakeClock
from tests.hook_channel import hook_channel

CHECK = "/envoy.service.auth.v3.Authorization/Check"

Check = Callable[[CheckRequest], Awaitable[CheckResponse]]


class AuthzServer:
    """A running Authorization with its metrics, and the policy that it reads."""

    def __init__(self) -> None:
        self.policy: CompiledPolicy = POLICY
        self.counted = CollectorRegistry()
        self.clock = FakeClock(0)
        metrics = Metrics(self.counted, self.clock)
        failures = FailureLimit(per_minute=3)
        self.admits = True
        self.service = Authorization(
            lambda: self.policy,
            NoTokens(),
            failures,
            self.clock,
            metrics,
            admits=lambda: self.admits,
        )

    def decisions(self, decision: str) -> float | None:
        labels = {"hook": "ext_authz", "decision": decision}
        return self.counted.get_sample_value("headgate_decisions_total", labels)

    def requests(self, status: str) -> float:
        labels = {"tenant": "-", "model": "-", "api": "chat", "status": status}
        return self.counted.get_sample_value("headgate_requests_total", labels) or 0


@pytest.fixture
def door() -> AuthzServer:
    return AuthzServer()


@pytest.fixture
async def check(door: AuthzServer) -> AsyncIterator[Check]:
    async with hook_channel(door.service.methods()) as channel:
        yield channel.unary_unary(
            CHECK,
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )


async def test_a_known_key_passes_and_is_counted(door: AuthzServer, check: Check) -> None:
    """One call, one decision."""
    response = await check(check_request(("authorization", f"Bearer {KEY}".encode())))

    assert response.WhichOneof("http_response") == "ok_response"
    assert door.decisions("ok") == 1


async def test_a_refusal_is_counted_under_its_code(door: AuthzServer, check: Check) -> None:
    """The label is the code that the client reads."""
    response = await check(check_request())

    assert response.denied_response.status.code == 401
    assert door.decisions("missing_api_key") == 1


async def test_metadata_of_a_filter_that_verifies_tokens_is_nobody(
    door: AuthzServer, check: Check
) -> None:
    """Another filter can write what Envoy's jwt_authn would, so Headgate believes neither."""
    request = check_request()
    metadata = request.attributes.metadata_context.filter_metadata
    metadata["envoy.filters.http.jwt_authn"].update({"payload": {"iss": "x", "sub": "alice"}})

    assert (await check(request)).denied_response.status.code == 401
    assert door.decisions("missing_api_key") == 1


async def test_a_new_policy_is_in_force_from_the_next_call(door: AuthzServer, check: Check) -> None:
    """A revoked key is refused at once."""
    request = check_request(("api-key", KEY.encode()))
    assert (await check(request)).status.code == 0

    door.policy = CompiledPolicy(POLICY.models, POLICY.tenants, {})

    assert (await check(request)).status.code == 16


async def test_while_the_gateway_ends_every_request_gets_503(
    door: AuthzServer, check: Check
) -> None:
    door.admits = False
    for credential in (RIGHT, WRONG):
        response = await check(check_request(credential))

        assert response.denied_response.status.code == 503
        assert "The gateway is shutting down" in response.denied_response.body


WRONG = ("authorization", b"Bearer sk-wrong")
RIGHT = ("authorization", f"Bearer {KEY}".encode())


async def test_failures_beyond_the_limit_get_429_and_a_known_key_passes_all_the_same(
    door: AuthzServer, check: Check
) -> None:
    """One client with a bad key must not lock out the office behind its address."""
    statuses = []
    for _ in range(5):
        assert (await check(check_request(RIGHT))).status.code == 0
        statuses.append((await check(check_request(WRONG))).denied_response.status.code)

    assert statuses == [401, 401, 401, 429, 429]
    assert (
        await check(check_request(WRONG, address="192.0.2.9"))
    ).denied_response.status.code == 401
    assert door.decisions("too_many_failures") == 2
    assert door.requests("429") == 2, "the access log sees none of these"
    assert door.requests("401") == 0, "the access log counts these"
    door.clock.advance(20)
    assert (await check(check_request(WRONG))).denied_response.status.code == 401


async def test_the_429_says_when_and_leaves_no_record(check: Check) -> None:
    """The official clients retry after a 429 unless a header says otherwise."""
    for _ in range(3):
        assert not (await check(check_request(WRONG))).dynamic_metadata.fields
    response = await check(check_request(WRONG, path="/v1/messages"))

    denied = response.denied_response
    headers = {option.header.key: option.header.value for option in denied.headers}
    assert headers["retry-after"] == "20"
    assert headers["x-should-retry"] == "false"
    body = json.loads(denied.body)
    assert body["error"]["type"] == "rate_limit_error"
    assert "20 s" in body["error"]["message"]
    assert response.dynamic_metadata.fields["record"].string_value == "no"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/nowhere", 404)]
)
async def test_every_request_without_a_known_key_counts_and_none_with_one(
    check: Check, method: str, path: str, status: int
) -> None:
    """Records of unknown paths fill a disk just like records of unknown keys."""
    for _ in range(9):
        known = await check(check_request(RIGHT, method=method, path=path))
        assert known.denied_response.status.code == status
    for _ in range(3):
        unknown = await check(check_request(WRONG, method=method, path=path))
        assert unknown.denied_response.status.code == status
    beyond = await check(check_request(WRONG, method=method, path=path))
    assert beyond.denied_response.status.code == 429


async def test_a_forged_address_changes_nothing(check: Check) -> None:
    """Only the address that the proxy itself sees counts."""
    for number in range(3):
        forged = ("x-forwarded-for", f"198.51.100.{number}".encode())
        await check(check_request(WRONG, forged))
    forged = ("x-forwarded-for", b"198.51.100.99")
    assert (await check(check_request(WRONG, forged))).denied_response.status.code == 429


async def test_the_time_of_each_answer_is_measured(door: AuthzServer, check: Check) -> None:
    """Every answer is one observation of the hook."""
    await check(check_request())

    observed = door.counted.get_sample_value("headgate_hook_seconds_count", {"hook": "ext_authz"})
    assert observed == 1
