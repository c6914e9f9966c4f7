"""Sidecars of the pods: real Envoys with certificates of istiod, which speak mTLS.

A real pod captures its traffic by iptables. Here each sidecar listens itself, at an address of its
own (`Pod.door_ip`), and the program listens at another one.
"""

import json

from headgate.istio_check.manifests import read_manifests
from tests.mesh.bootstrap import bootstrap
from tests.mesh.cluster import RunningMesh
from tests.mesh.kube_api import Object
from tests.mesh.machine import ISTIO
from tests.mesh.pods import Pod
from tests.patience import wait_until
from tests.ports import free_port

DROPPED = {"HorizontalPodAutoscaler", "PodDisruptionBudget"}


def one_of_each(objects: list[Object]) -> list[Object]:
    """One pod of the services and one of the model's v1, so that the Envoys stay few."""
    kept = [
        each
        for each in objects
        if each["kind"] not in DROPPED and each["metadata"]["name"] != "llama-8b-v2"
    ]
    for each in kept:
        if each["kind"] == "Deployment":
            each["spec"]["replicas"] = 1
        elif each["kind"] == "VirtualService":
            _lead_to_v1(each)
    return kept


def _lead_to_v1(virtual: Object) -> None:
    """No split of a VirtualService gives v2 a share, as it has no pod."""
    for route in virtual["spec"]["http"]:
        split = route.get("route", [])
        if len(split) > 1:
            first, second = split
            first["weight"], second["weight"] = 100, 0


def apply_component(mesh: RunningMesh, name: str, *files: str) -> None:
    """Applies these files of a component, as they are shipped."""
    for file in files:
        for manifest in read_manifests(ISTIO / "components" / name / f"{file}.yaml"):
            mesh.apply(json.loads(json.dumps(manifest.value, default=float)))


HOOKS: Object = {"hosts": ["headgate/*"], "captureMode": "NONE"}
"""What an Envoy with our filters calls."""


def start_sidecar(mesh: RunningMesh, pod: Pod, sidecar: Object, *egress: Object) -> int:
    """Starts the pod's Envoy. `sidecar` says what it takes in, and `egress` what the pod calls.

    Returns the port of its admin interface.
    """
    mesh.apply(_captured(sidecar, pod, egress))
    admin = free_port()
    node = f"sidecar~{pod.ip}~{pod.name}.{pod.namespace}~{pod.namespace}.svc.cluster.local"
    labels = {"NAMESPACE": pod.namespace, "LABELS": dict(pod.labels)}
    ports = mesh.ports_of_proxy(admin)
    mesh.start_proxy(f"{pod.name}-proxy", bootstrap(node, pod.ip, labels, ports, pod.account))
    wait_until(lambda: mesh.is_ready(admin), f"the sidecar of {pod.name}")
    return admin


def sidecar_for(name: str, namespace: str, labels: Object, *ingress: Object) -> Object:
    """A Sidecar of pods with these labels."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workloadSelector": {"labels": labels}, "ingress": list(ingress)},
    }


def models_at(ip: str, number: int = 8000) -> Object:
    """The egress of a caller of models: its Envoy listens for it at this address."""
    port = {"number": number, "protocol": "HTTP", "name": "http"}
    return {"port": port, "bind": ip, "captureMode": "NONE", "hosts": ["vllm/*"]}


def _captured(sidecar: Object, pod: Pod, egress: tuple[Object, ...]) -> Object:
    """The Sidecar by which Envoy listens itself at the pod's addresses."""
    whole: Object = json.loads(json.dumps(sidecar))
    spec = whole["spec"]
    for entry in spec["ingress"]:
        entry |= {"bind": pod.door_ip, "captureMode": "NONE"}
    spec["egress"] = list(egress)
    return whole
