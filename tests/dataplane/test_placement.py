"""Requests go to the pods that the services name, in order, as far as they are healthy."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from unittest.mock import patch

import httpx
import pytest
import pytest_asyncio

from headgate._gen import auth_pb2
from headgate.core.contract import AdmissionKey, Header
from headgate.core.lean_contract import HookPath
from tests.envoy_process import Rig, running_envoy
from tests.fake_hooks import MODEL, admit, route
from tests.fake_upstream import Answer, Upstream, reply
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

PODS = 3
ABSENT = "127.0.0.1:1"
HEALTHY = "health_flags::healthy"


@dataclass
class Fleet:
    """An Envoy and the three pods of its model, each of which answers with its number."""

    rig: Rig
    pods: list[Upstream]

    def address(self, number: int) -> str:
        return f"127.0.0.1:{self.pods[number].port}"

    def place(self, *pods: int | str, list_: str | None = None) -> None:
        """From now on the services name these pods, by number or address, or this list."""
        named = (self.address(pod) if isinstance(pod, int) else pod for pod in pods)
        hosts = ",".join(named) if list_ is None else list_
        self.rig.services.process = route({AdmissionKey.HOSTS: hosts})
        self.rig.services.check = (
            _lean_admit(hosts) if self.rig.box.path is HookPath.LEAN else admit
        )

    def set_health(self, number: int, status: int) -> None:
        self.pods[number].answer = pod_answer(number, status)

    async def until_health(self, number: int, *, healthy: bool) -> None:
        """Waits until Envoy knows the health of a pod."""
        line = f"::{self.address(number)}::health_flags::"
        transport = httpx.AsyncHTTPTransport(uds=str(self.rig.box.admin_socket))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://envoy") as client,
            asyncio.timeout(PATIENCE_S),
        ):
            while True:
                lines = (await client.get("/clusters")).text.splitlines()
                flags = next(each for each in lines if line in each)
                if flags.endswith(HEALTHY) == healthy:
                    return
                await asyncio.sleep(0.05)

    async def served(self) -> str:
        """The number of the pod that answers a request, or the status of a failure."""
        answer = await self.rig.post(authorization="Bearer x")
        return answer.text if answer.status_code == 200 else str(answer.status_code)


def pod_answer(number: int, status: int = 200) -> Answer:
    return reply(status, str(number).encode())


def _lean_admit(hosts: str) -> Callable[[auth_pb2.CheckRequest], auth_pb2.CheckResponse]:
    def answer(_: auth_pb2.CheckRequest) -> auth_pb2.CheckResponse:
        response = auth_pb2.CheckResponse()
        response.status.code = 0
        base = response.ok_response.headers.add().header
        base.key, base.value = Header.BASE, MODEL
        admission = {AdmissionKey.ESTIMATE: "40", AdmissionKey.CLIENT_USAGE: "untouched"}
        response.dynamic_metadata.update({**admission, AdmissionKey.HOSTS: hosts})
        return response

    return answer


@pytest_asyncio.fixture(params=HookPath, scope="module", loop_scope="module")
async def fleet_of_module(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    interval = patch("headgate.dataplane.placement.CHECK_INTERVAL", timedelta(seconds=0.2))
    async with AsyncExitStack() as stack:
        stack.enter_context(interval)
        pods = [Upstream() for _ in range(PODS)]
        for pod in pods:
            await pod.start()
            stack.push_async_callback(pod.stop)
        addresses = [f"127.0.0.1:{pod.port}" for pod in pods]
        rig = await stack.enter_async_context(running_envoy(path=request.param, pods=addresses))
        yield Fleet(rig, pods)


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(fleet_of_module: Fleet) -> Fleet:
    """The fleet with all pods up and healthy."""
    for number, pod in enumerate(fleet_of_module.pods):
        fleet_of_module.set_health(number, 200)
        await pod.stop()
        await pod.start()
    for number in range(PODS):
        await fleet_of_module.until_health(number, healthy=True)
    return fleet_of_module


async def test_the_first_pod_of_the_list_answers(fleet: Fleet) -> None:
    for number in (2, 0, 1, 1):
        fleet.place(number, (number + 1) % PODS)
        assert await fleet.served() == str(number)
    assert {number for number, pod in enumerate(fleet.pods) if pod.received} == {0, 1, 2}


async def test_a_pod_that_refuses_connections_is_followed_by_the_rest_in_order(
    fleet: Fleet,
) -> None:
    """Whether or not Envoy has already seen that a pod is gone."""
    await fleet.pods[2].stop()
    fleet.place(2, 1, 0)
    assert await fleet.served() == "1"
    await fleet.pods[1].stop()
    fleet.place(2, 1, 0)
    assert await fleet.served() == "0"
    await fleet.until_health(2, healthy=False)
    fleet.place(2, 0, 1)
    assert [await fleet.served() for _ in range(3)] == ["0"] * 3


async def test_an_unhealthy_first_pod_is_passed_over(fleet: Fleet) -> None:
    """It would answer 503, as vLLM does once its engine is dead."""
    fleet.set_health(0, 503)
    await fleet.until_health(0, healthy=False)
    fleet.place(0, 2, 1)
    assert [await fleet.served() for _ in range(5)] == ["2"] * 5
    fleet.set_health(0, 200)
    await fleet.until_health(0, healthy=True)
    assert await fleet.served() == "0"


async def test_a_pod_that_envoy_does_not_know_is_passed_over(fleet: Fleet) -> None:
    fleet.place(ABSENT, 1, 2)
    assert await fleet.served() == "1"
    fleet.place(ABSENT)
    assert await fleet.served() in {"0", "1", "2"}


async def test_a_pod_is_asked_although_all_are_unhealthy(fleet: Fleet) -> None:
    """Envoy's panic mode: an answer is better than a refusal if the checks are wrong."""
    for number in range(PODS):
        fleet.set_health(number, 503)
    for number in range(PODS):
        await fleet.until_health(number, healthy=False)
    before = _asked(fleet.pods)
    fleet.place(0, 1, 2)
    assert await fleet.served() == "503"
    assert _asked(fleet.pods) == before + 1


async def test_a_list_that_names_no_pod_leaves_the_choice_to_envoy(fleet: Fleet) -> None:
    for hosts in ("", ",", "nonsense", "127.0.0.1", "127.0.0.1:x,;", "[::1", " , "):
        fleet.place(list_=hosts)
        assert await fleet.served() in {"0", "1", "2"}


async def test_requests_without_a_list_are_spread(fleet: Fleet) -> None:
    fleet.rig.services.process = route()
    if fleet.rig.box.path is HookPath.LEAN:
        fleet.place(list_="")
    answers = {await fleet.served() for _ in range(30)}
    assert len(answers) > 1


def _asked(pods: Sequence[Upstream]) -> int:
    return sum(each.path != "/health" for pod in pods for each in pod.received)
