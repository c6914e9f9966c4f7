"""Check over a real gRPC connection."""

from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from prometheus_client import CollectorRegistry

from extauthz.service import Authorization
from headgate.metrics import Metrics
from protos.gen.auth_pb2 import CheckRequest, CheckResponse
from registry.types import Registry
from tests.extauthz.builders import KEY, REGISTRY, check_request
from tests.fakes import FakeClock

CHECK = "/envoy.service.auth.v3.Authorization/Check"

Check = Callable[[CheckRequest], Awaitable[CheckResponse]]


class Door:
    """A served Authorization: what it counts, and the registry it reads."""

    def __init__(self) -> None:
        self.registry: Registry = REGISTRY
        self.counted = CollectorRegistry()
        metrics = Metrics(self.counted, FakeClock(0))
        self.service = Authorization(lambda: self.registry, metrics)

    def decisions(self, decision: str) -> float | None:
        labels = {"hook": "ext_authz", "decision": decision}
        return self.counted.get_sample_value("headgate_decisions_total", labels)


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def check(door: Door) -> AsyncIterator[Check]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((door.service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary(
            CHECK,
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )
    await server.stop(None)


async def test_a_known_key_passes_and_is_counted(door: Door, check: Check) -> None:
    """One call, one decision."""
    response = await check(check_request(("authorization", f"Bearer {KEY}".encode())))

    assert response.WhichOneof("http_response") == "ok_response"
    assert door.decisions("ok") == 1


async def test_a_refusal_is_counted_under_its_code(door: Door, check: Check) -> None:
    """The label is the code that the client reads."""
    response = await check(check_request())

    assert response.denied_response.status.code == 401
    assert door.decisions("missing_api_key") == 1


async def test_a_new_registry_counts_from_the_next_call(door: Door, check: Check) -> None:
    """A revoked key is refused at once."""
    request = check_request(("api-key", KEY.encode()))
    assert (await check(request)).status.code == 0

    door.registry = Registry(REGISTRY.models, REGISTRY.tenants, {})

    assert (await check(request)).status.code == 16


async def test_the_time_of_each_answer_is_measured(door: Door, check: Check) -> None:
    """Every answer is one observation of the hook."""
    await check(check_request())

    observed = door.counted.get_sample_value("headgate_hook_seconds_count", {"hook": "ext_authz"})
    assert observed == 1
