"""The leader's whole loop in a mesh with mTLS, with a real PostgreSQL and the management API."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from headgate.adapters.plan.values import GRACE_S
from headgate.adapters.reconcile.reconciler import Reconciler
from headgate.core.metrics import Metrics
from headgate.database.address import DatabaseAddress
from tests.adapters.rig import ShiftedClock, eventually
from tests.box import small_chat
from tests.identity.builders import POLICY, connect_to
from tests.management.conftest import OPERATOR_TOKEN, made
from tests.mesh.adapter_site import VERSION, Site, resolving, running_site
from tests.mesh.capture import captured_transport
from tests.mesh.pods import Pod
from tests.postgres_server import PostgresServer, running_server

ADAPTER = "/api/v1/adapters/acme-sql"
BODY = {"name": "acme-sql", "tenant": "acme", "base": "tiny", "source": "acme/sql-7", "copies": 1}


@dataclass
class Led:
    """A site whose adapters a reconciler keeps, and the management API."""

    site: Site
    api: httpx.AsyncClient
    clock: ShiftedClock

    async def places(self) -> list[dict[str, Any]]:
        """The pods that have the version or get it, as the API tells them."""
        (version,) = (await self.api.get(ADAPTER)).json()["versions"]
        return list(version["places"])

    async def is_loaded(self) -> bool:
        return [place["step"] for place in await self.places()] == ["loaded"]

    def ask(self, pod: Pod, method: str, path: str, body: object = None) -> httpx.Response:
        """The gateway asks a pod."""
        trusted = self.site.certificate("istio-ingress", "default")
        url = f"https://{pod.door_ip}:8000{path}"
        return httpx.request(method, url, json=body, verify=trusted)

    def chat(self, pod: Pod) -> int:
        """The status of a chat with the version."""
        body = {**small_chat(), "model": VERSION}
        return self.ask(pod, "POST", "/v1/chat/completions", body).status_code

    async def lists_none(self) -> bool:
        answers = [self.ask(pod, "GET", "/v1/models").json() for pod in self.site.pods]
        return [len(answer["data"]) for answer in answers] == [1, 1]  # the base model alone


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("adapters")) as running:
        yield running


@pytest.fixture
async def led(
    site: Site, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Led]:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(site))
    address, clock = postgres.address(postgres.clean_database()), ShiftedClock()
    app, _ = made(address, clock, tmp_path / "operator-token")
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    headers = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
    client = httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers)
    async with leading(site, address, clock), client as api:
        yield Led(site, api, clock)


@asynccontextmanager
async def leading(site: Site, address: DatabaseAddress, clock: ShiftedClock) -> AsyncIterator[None]:
    """A replica's reconciler, in the pod of the caller."""
    tiny = replace(POLICY.models["tiny"], adapter_pool=site.pool)
    policy = replace(POLICY, models={**POLICY.models, "tiny": tiny})
    metrics = Metrics(CollectorRegistry(), clock).of_adapters
    reconciler = Reconciler(connect_to(address), lambda: policy, clock, metrics)
    reconciler._http._transport = captured_transport(site.caller.ip)
    async with reconciler:
        yield


async def test_an_adapter_is_registered_loaded_called_loaded_again_and_unloaded(led: Led) -> None:
    assert (await led.api.post("/api/v1/adapters", json=BODY)).status_code == 201
    await eventually(led.is_loaded)
    (place,) = await led.places()
    (its,) = (pod for pod in led.site.pods if f"{pod.door_ip}:8000" == place["pod"])
    (other,) = (pod for pod in led.site.pods if pod is not its)
    assert [led.chat(pod) for pod in (its, other)] == [200, 404]
    assert [path.name for path in led.site.disk.iterdir()] == [VERSION]
    assert led.site.handshakes(8000) >= len(led.site.pods)
    assert led.site.handshakes(9003) >= 1

    led.site.mesh.kill(its.name)
    led.site.mesh.start_pod(its)

    async def answers() -> bool:
        return led.chat(its) == 200

    await eventually(answers)

    assert (await led.api.post(f"{ADAPTER}/remove")).status_code == 200
    led.clock.shift_s += GRACE_S + 1
    await eventually(led.lists_none)
    assert [led.chat(pod) for pod in led.site.pods] == [404, 404]
