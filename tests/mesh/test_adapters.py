"""Adapters in a mesh with mTLS: Headgate reaches each pod by its Service, and nobody else does."""

import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.adapters.plan.values import Spot
from headgate.adapters.reconcile.act import Copying, PodActions
from headgate.adapters.reconcile.hosts import PodHosts
from headgate.adapters.reconcile.look import PodLooker
from headgate.core.adapter_pools import AdapterPool
from headgate.core.clock import SystemClock
from tests.adapters.files import write_adapter, write_base
from tests.mesh.agent import Agent
from tests.mesh.capture import captured_client, original_destinations
from tests.mesh.cluster import RunningMesh, is_200, prepared_mesh
from tests.mesh.kube_api import Object
from tests.mesh.machine import ISTIO
from tests.mesh.pods import Pod
from tests.mesh.policies import policy
from tests.mesh.sidecars import DROPPED, HOOKS, models_at, sidecar_for, start_sidecar
from tests.patience import wait_until

PODS = "lora-pods.vllm.svc.cluster.local"
POOL = AdapterPool(
    pods=(f"{PODS}:8000",),
    live=1,
    listed=2,
    max_rank=8,
    trained_on=("org/tiny",),
    folder="",
    agent_port=9003,
)
VERSION = "acme-sql@1"
LOADS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
DENIED = "RBAC: access denied"


@dataclass
class Site:
    """A mesh with two pods of lora, each with an agent, and a caller with Headgate's account."""

    mesh: RunningMesh
    folder: Path
    caller: Pod
    admin: int

    @property
    def pods(self) -> list[Pod]:
        return self.mesh.pods_named("lora")

    @property
    def pool(self) -> AdapterPool:
        return POOL

    def certificate(self, namespace: str, account: str) -> ssl.SSLContext:
        """A client with the certificate of a workload, which trusts the mesh's authority."""
        assert self.mesh.agent is not None
        return self.mesh.agent.client(self.folder, namespace, account)

    def ask(self, account: str, method: str, port: int, path: str) -> httpx.Response:
        """A call of a workload (`namespace/account`) straight to a pod's sidecar."""
        trusted = self.certificate(*account.split("/"))
        url = f"https://{self.pods[0].door_ip}:{port}{path}"
        return httpx.request(method, url, json={"lora_name": VERSION}, verify=trusted)

    def handshakes(self, port: int) -> int:
        """How many connections of the caller's Envoy to the headless Service spoke mTLS."""
        name = f"cluster.outbound|{port}||{PODS};.ssl.handshake: "
        lines = httpx.get(f"http://127.0.0.1:{self.admin}/stats").text.splitlines()
        plain = name.replace(";", "")
        return sum(
            int(line.rpartition(": ")[2]) for line in lines if line.startswith((name, plain))
        )

    @asynccontextmanager
    async def reconciler(self) -> AsyncIterator[tuple[PodLooker, PodActions]]:
        """The parts of the reconciler that call pods, behind the caller's Envoy."""
        hosts = PodHosts()
        async with captured_client(self.caller.ip, event_hooks={"request": [hosts.name]}) as http:
            yield PodLooker(http, SystemClock(), hosts), PodActions(http)


def only_lora(objects: list[Object]) -> list[Object]:
    """The Deployment with the agents, and its Services; the others would only cost time."""
    programs = ("Deployment", "Service")
    return [
        each
        for each in objects
        if each["kind"] not in DROPPED
        and (each["kind"] not in programs or each["metadata"]["name"].startswith("lora"))
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("adapters")
    overlay = folder / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/staging, {ISTIO}/models/lora]\n"
        f"components: [{ISTIO}/components/adapters]\n"
    )
    write_adapter(folder / "sources" / "acme" / "sql-7")
    write_base(folder)
    with prepared_mesh(folder, policy(), overlay, only_lora) as mesh:
        mesh.agent = Agent()
        mesh.start_pods({})
        for pod in mesh.pods:
            start_agent(mesh, pod)
        mesh.start_istiod({})
        yield started(mesh, folder)


def start_agent(mesh: RunningMesh, pod: Pod) -> None:
    """The container `agent` of the component, with paths of this machine."""
    containers = mesh.objects[("Deployment", "lora")]["spec"]["template"]["spec"]["containers"]
    (args,) = (one["args"] for one in containers if one["name"] == "agent")
    disk = mesh.folder / pod.name
    disk.mkdir()
    paths = {
        "--sources=/sources": f"--sources={mesh.folder}/sources",
        "--folder=/adapters": f"--folder={disk}",
        "--base-config=/base/config.json": f"--base-config={mesh.folder}/config.json",
    }
    own = [paths.get(arg, arg) for arg in args]
    here = ["--listen", f"{pod.ip}:9003", "--vllm", f"http://{pod.ip}:8000"]
    mesh.start(f"{pod.name}-agent", sys.executable, "-m", "headgate", *own, *here)
    health = f"http://{pod.ip}:9003/health"
    wait_until(lambda: is_200(health), f"the agent of {pod.name}")


def started(mesh: RunningMesh, folder: Path) -> Site:
    """Starts the Envoys of the pods and of the caller."""
    mesh.apply(original_destinations("headgate", "caller"))
    taken = [
        {"port": {"number": number, "protocol": "HTTP", "name": name}, "defaultEndpoint": at}
        for number, name, at in (
            (8000, "http", "0.0.0.0:8000"),
            (9003, "http-agent", "0.0.0.0:9003"),
        )
    ]
    for pod in mesh.pods:  # each has an address of its own, and so a Sidecar of its own
        pod.labels = {**pod.labels, "pod": pod.name}
    mesh.publish()
    for pod in mesh.pods:
        sidecar = sidecar_for(pod.name, "vllm", {"pod": pod.name}, *taken)
        start_sidecar(mesh, pod, sidecar, HOOKS)
    caller = Pod("caller-0", "headgate", mesh.addresses.next(), {"app": "caller"}, [], {})
    caller.account, caller.door_ip = "headgate", mesh.addresses.next()
    mesh.api.apply(caller.value())
    sidecar = sidecar_for("caller", "headgate", {"app": "caller"})
    egress = models_at(caller.ip), models_at(caller.ip, 9003)
    admin = start_sidecar(mesh, caller, sidecar, *egress)
    return Site(mesh, folder, caller, admin)


@pytest.fixture
def dns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the headless Service resolves to the addresses of its pods."""
    real = socket.getaddrinfo

    def resolved(host: Any, port: Any, *args: Any, **kind: Any) -> list[Any]:
        if host != PODS:
            return real(host, port, *args, **kind)
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*stream, (pod.door_ip, port)) for pod in site.pods]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.mark.usefixtures("dns")
async def test_headgate_copies_loads_and_unloads_on_each_pod_by_the_name_of_their_service(
    site: Site,
) -> None:
    async with site.reconciler() as (looker, actions):
        seen = await looker.look(site.pool.pods)
        assert {pod.address for pod in seen} == {f"{pod.door_ip}:8000" for pod in site.pods}
        assert [pod.listed for pod in seen] == [{}, {}]

        for pod in site.pods:
            spot, root = Spot(f"{pod.door_ip}:8000", VERSION), f"{site.folder}/{pod.name}/{VERSION}"
            while isinstance(await actions.copy(spot, "acme/sql-7", site.pool), Copying):
                pass
            await actions.load(spot, root)
            assert await actions.kept(spot.pod, site.pool) == [VERSION]
            own = next(one for one in await looker.look(site.pool.pods) if one.address == spot.pod)
            assert own.listed == {VERSION: root}
            await actions.unload(spot)
            await actions.remove(spot, site.pool)
            assert await actions.kept(spot.pod, site.pool) == []

    assert site.handshakes(8000) >= len(site.pods)
    assert site.handshakes(9003) >= len(site.pods)


async def test_a_call_that_names_no_service_is_in_clear_text_and_no_pod_takes_it(
    site: Site,
) -> None:
    async with captured_client(site.caller.ip) as http:
        answer = await http.get(f"http://{site.pods[0].door_ip}:8000/v1/models")

    assert answer.status_code in (502, 503)


@pytest.mark.parametrize("account", ["istio-ingress/default", "vllm/lora", "apps/nightly"])
@pytest.mark.parametrize("path", LOADS)
def test_no_other_workload_may_load_or_unload(site: Site, account: str, path: str) -> None:
    answer = site.ask(account, "POST", 8000, path)

    assert (answer.status_code, answer.text) == (403, DENIED)


@pytest.mark.parametrize(
    "account", ["istio-ingress/default", "vllm/lora", "monitoring/default", "headgate/default"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/versions"), ("PUT", f"/versions/{VERSION}")]
)
def test_no_other_workload_reaches_an_agent(
    site: Site, account: str, method: str, path: str
) -> None:
    answer = site.ask(account, method, 9003, path)

    assert (answer.status_code, answer.text) == (403, DENIED)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load%5Flora_adapter",
        "/v1/%6Coad_lora_adapter",
        "/v1/./load_lora_adapter",
        "/v1//load_lora_adapter",
        "/v1%2Fload_lora_adapter",
        "/v1/x/../load_lora_adapter",
        "/v1/load_lora_adapter/",
        "/v1/load_lora_adapter?x=1",
        "/V1/load_lora_adapter",
    ],
)
def test_no_other_spelling_of_the_path_loads(site: Site, path: str) -> None:
    """The proxy may let one pass, but no pod lists the adapter then."""
    answer = site.ask("istio-ingress/default", "POST", 8000, path)

    assert answer.status_code in (400, 403, 404, 307), answer.text
    listed = site.ask("istio-ingress/default", "GET", 8000, "/v1/models").json()["data"]
    assert [card["id"] for card in listed] == ["llama-8b"]


def test_the_accounts_of_headgate_and_of_the_gateway_are_admitted(site: Site) -> None:
    assert site.ask("headgate/headgate", "GET", 9003, "/versions").json() == {"versions": []}
    assert site.ask("headgate/headgate", "POST", 8000, LOADS[1]).status_code == 404  # vLLM's own
    assert site.ask("istio-ingress/default", "GET", 8000, "/v1/models").status_code == 200


def test_another_policy_cannot_open_the_paths(site: Site) -> None:
    """A DENY policy holds beside any ALLOW policy."""
    everybody = site.mesh.changed("AuthorizationPolicy", "adapters-by-headgate")
    everybody["metadata"]["name"] = "everybody"
    everybody["spec"]["rules"] = [{}]
    site.mesh.apply(everybody)

    wait_until(
        lambda: site.ask("apps/nightly", "GET", 8000, "/v1/models").status_code == 200,
        "the policy of somebody else",
    )
    assert site.ask("apps/nightly", "POST", 8000, LOADS[0]).status_code == 403
    assert site.ask("apps/nightly", "GET", 9003, "/versions").status_code == 403
