"""A mesh with mTLS, two pods of lora with an agent each, and a caller with Headgate's account.

The pods of this machine have one disk together, where real pods have the same path each.
"""

import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from headgate.adapters.reconcile.act import PodActions
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
_POOL = AdapterPool(
    pods=(f"{PODS}:8000",),
    live=1,
    listed=2,
    max_rank=8,
    trained_on=("org/tiny",),
    folder="",
    agent_port=9003,
)
VERSION = "acme-sql@1"
DISK = "disk"


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
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def pool(self) -> AdapterPool:
        return replace(_POOL, folder=str(self.disk))

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


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Everything, started and ready; the source `acme/sql-7` is there."""
    overlay = folder / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/staging, {ISTIO}/models/lora]\n"
        f"components: [{ISTIO}/components/adapters]\n"
    )
    write_adapter(folder / "sources" / "acme" / "sql-7")
    write_base(folder)
    (folder / DISK).mkdir()
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
    paths = {
        "--sources=/sources": f"--sources={mesh.folder}/sources",
        "--folder=/adapters": f"--folder={mesh.folder / DISK}",
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


def resolving(site: Site) -> Any:
    """`getaddrinfo` for which the headless Service's name is the addresses of its pods."""
    real = socket.getaddrinfo

    def resolved(host: Any, port: Any, *args: Any, **kind: Any) -> list[Any]:
        if host != PODS:
            return real(host, port, *args, **kind)
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*stream, (pod.door_ip, port)) for pod in site.pods]

    return resolved
