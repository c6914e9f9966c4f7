"""The pods of the Deployments: objects for istiod, and processes with their own addresses."""

import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
_HASH = "5d9c7b6f4"
"""A Deployment's ReplicaSet has its name and such a hash; istiod finds the Deployment by it."""
MUTUAL = "security.istio.io/tlsMode"
"""The label by which istiod knows that a pod has a sidecar."""


@dataclass
class Pod:
    """One pod of a Deployment. An EndpointSlice lists it only while it is `ready`.

    Its program listens at `ip`. A pod with a sidecar is known by `door_ip`, where the sidecar does.
    """

    name: str
    namespace: str
    ip: str
    labels: Mapping[str, str]
    args: list[str]
    ports: Mapping[str, int]
    ready: bool = True
    account: str = "default"
    door_ip: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The address by which others know the pod."""
        return self.door_ip or self.ip

    def value(self) -> Object:
        """The Pod object, as the kubelet reports it."""
        ready = {"type": "Ready", "status": "True"}
        deployment = self.name.rpartition("-")[0]
        sidecar = {MUTUAL: "istio"} if self.door_ip else {}
        metadata = {
            "name": self.name,
            "generateName": f"{deployment}-{_HASH}-",
            "namespace": self.namespace,
            "labels": {**self.labels, **sidecar, "pod-template-hash": _HASH},
            "annotations": dict(self.annotations),
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"{deployment}-{_HASH}",
                    "uid": deployment,
                    "controller": True,
                }
            ],
        }
        status = {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [ready],
        }
        spec = {
            "serviceAccountName": self.account,
            "containers": [{"name": "one", "image": "none"}],
        }
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status,
        }  # fmt: skip


def _free_network() -> str:
    """The first three numbers of a network where no program listens on a model's port."""
    while True:
        network = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}"
        with socket.socket() as probe:
            if probe.connect_ex((f"{network}.1", 8000)) != 0:
                return network


@dataclass
class Addresses:
    """Free addresses of the loopback range: pods of one Service share its port."""

    network: str = field(default_factory=_free_network)
    used: int = 0

    def next(self) -> str:
        self.used += 1
        return f"{self.network}.{self.used}"


def pods_of(objects: Iterable[Object], addresses: Addresses, *, have_sidecars: bool) -> list[Pod]:
    """The pods of each Deployment: its `replicas`, or the minimum of its autoscaler."""
    objects = list(objects)
    least = {
        (scaler["metadata"]["namespace"], scaler["spec"]["scaleTargetRef"]["name"]): scaler["spec"]
        for scaler in objects
        if scaler["kind"] == "HorizontalPodAutoscaler"
    }
    pods = []
    for deployment in objects:
        if deployment["kind"] != "Deployment":
            continue
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        containers = template["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for one in containers for port in one["ports"]}
        scaled = least.get((metadata["namespace"], metadata["name"]), {})
        for number in range(deployment["spec"].get("replicas", scaled.get("minReplicas", 1))):
            name = f"{metadata['name']}-{number}"
            labels, args = template["metadata"]["labels"], containers[0].get("args", [])
            ip = addresses.next()
            pod = Pod(name, metadata["namespace"], ip, labels, args, ports)
            pod.account = template["spec"].get("serviceAccountName", "default")
            pod.door_ip = addresses.next() if have_sidecars else ""
            pods.append(pod)
    return pods


def endpoint_slice(service: Object, pods: Iterable[Pod]) -> Object:
    """The addresses of the pods that a Service selects, as Kubernetes lists them."""
    metadata, selector = service["metadata"], service["spec"]["selector"]
    chosen = [
        pod
        for pod in pods
        if pod.namespace == metadata["namespace"] and selector.items() <= pod.labels.items()
    ]
    ports = [
        {"name": port["name"], "port": _number(port, chosen), "protocol": "TCP"}
        for port in service["spec"]["ports"]
    ]
    endpoints = [
        {
            "addresses": [pod.address],
            "conditions": {"ready": pod.ready, "serving": pod.ready, "terminating": False},
            "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
        }
        for pod in chosen
        if pod.ready
    ]
    labels = {"kubernetes.io/service-name": metadata["name"]}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name']}-1",
            "namespace": metadata["namespace"],
            "labels": labels,
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    }


def _number(port: Object, pods: list[Pod]) -> int:
    target = port.get("targetPort", port["port"])
    return int(pods[0].ports[target]) if isinstance(target, str) else int(target)
