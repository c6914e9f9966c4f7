"""A mesh in ambient mode: a waypoint with istiod's configuration, and two Envoys for ztunnel.

A plain Envoy lacks the filters of Istio's own proxy that describe peers for its metrics, so an
EnvoyFilter takes them out. A node before Istio 1.29.2 gets types that a plain Envoy has.
"""

from dataclasses import dataclass

from tests.mesh.bootstrap import bootstrap
from tests.mesh.cluster import RunningMesh
from tests.mesh.kube_api import Object
from tests.mesh.pods import Pod
from tests.mesh.ztunnel import TUNNEL_PORT, caller_proxy, node_proxy
from tests.patience import wait_until
from tests.ports import free_port

AMBIENT_ENV = {"PILOT_ENABLE_AMBIENT": "true", "PILOT_ENABLE_GATEWAY_API": "true"}
NAME = "waypoint"
_LABEL = "gateway.networking.k8s.io/gateway-name"
_VERSION = "1.29.1"
_BUNDLE = {"gateway.networking.k8s.io/bundle-version": "v1.5.1"}
_PEERS = ("waypoint_downstream_peer_metadata", "waypoint_upstream_peer_metadata")
REDIRECTED = {"ambient.istio.io/redirection": "enabled"}
"""The annotation by which istiod knows that a pod has tunnels."""


@dataclass
class Ambient:
    """The waypoint of a mesh, and the door of a caller whose requests pass it."""

    mesh: RunningMesh
    admin: int
    door: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.door}"


def gateway_api() -> list[Object]:
    """The definitions of the kinds of the Gateway API, and the class of waypoints."""
    names = ("gateways", "gatewayclasses", "httproutes", "grpcroutes", "referencegrants")
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    crds = [
        {**crd, "metadata": {"name": f"{name}.gateway.networking.k8s.io", "annotations": _BUNDLE}}
        for name in names
    ]
    kind = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"},
        "spec": {"controllerName": "istio.io/mesh-controller"},
    }
    return [*crds, kind]


def give_addresses(mesh: RunningMesh) -> None:
    """Gives each Service an address of its own, as Kubernetes does: a waypoint goes by them."""
    services = [one for (kind, _), one in mesh.objects.items() if kind == "Service"]
    for number, service in enumerate(services, 1):
        if service["spec"].get("clusterIP") != "None":
            address = f"10.96.0.{number}"
            mesh.apply({**service, "spec": {**service["spec"], **_with(address)}})


def _with(address: str) -> Object:
    return {"clusterIP": address, "clusterIPs": [address], "type": "ClusterIP"}


def waypoint_of(mesh: RunningMesh) -> Pod:
    """The objects that Istio makes of the Gateway: a pod, and a Service."""
    pod = Pod("waypoint-0", "vllm", mesh.addresses.next(), {_LABEL: NAME}, [], {})
    pod.account = NAME
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": "vllm", "labels": {_LABEL: NAME}},
        "spec": {
            "selector": {_LABEL: NAME},
            "ports": [{"name": "mesh", "port": TUNNEL_PORT, "appProtocol": "all"}],
        },
    }
    mesh.apply(service)
    mesh.pods.append(pod)
    return pod


def announce(mesh: RunningMesh) -> None:
    """The Gateway has the address of its Service once a pod is ready."""
    gateway = mesh.changed("Gateway", NAME)
    address = mesh.objects[("Service", NAME)]["spec"]["clusterIP"]
    gateway["status"] = {"addresses": [{"type": "IPAddress", "value": address}]}
    mesh.apply(gateway)


def fit_plain_envoy(pod: Pod) -> Object:
    """The EnvoyFilter by which the waypoint listens at its own address, without Istio's filters."""
    at = {"socket_address": {"address": pod.ip, "port_value": TUNNEL_PORT}}
    manager = {"name": "envoy.filters.network.http_connection_manager"}
    patches = [
        {
            "applyTo": "LISTENER",
            "match": {"context": "SIDECAR_INBOUND", "listener": {"name": "connect_terminate"}},
            "patch": {"operation": "MERGE", "value": {"address": at}},
        },
        *(
            {
                "applyTo": "HTTP_FILTER",
                "match": {
                    "context": "SIDECAR_INBOUND",
                    "listener": {
                        "filterChain": {"filter": {**manager, "subFilter": {"name": name}}}
                    },
                },
                "patch": {"operation": "REMOVE"},
            }
            for name in _PEERS
        ),
    ]
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": NAME}
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "plain-envoy", "namespace": "vllm"},
        "spec": {"targetRefs": [target], "configPatches": patches},
    }


def start_waypoint(mesh: RunningMesh, pod: Pod) -> int:
    """Starts the waypoint's Envoy. Returns the port of its admin interface."""
    admin = free_port()
    node = f"waypoint~{pod.ip}~{pod.name}.vllm~vllm.svc.cluster.local"
    labels = {"NAMESPACE": "vllm", "LABELS": dict(pod.labels)}
    whole = bootstrap(node, pod.ip, labels, mesh.ports_of_proxy(admin), pod.account)
    whole["node"]["metadata"]["ISTIO_VERSION"] = _VERSION
    mesh.start_proxy("waypoint", whole)
    wait_until(lambda: mesh.is_ready(admin), "the waypoint")
    return admin


def start_node(mesh: RunningMesh, account: str, pods: list[Pod]) -> None:
    """Starts the tunnels' ends in front of these pods."""
    assert mesh.agent is not None
    admin = free_port()
    name = f"node-of-{account.replace('/', '-')}"
    addresses = [pod.ip for pod in pods]
    mesh.start_proxy(name, node_proxy(account, mesh.agent.port, admin, addresses))
    wait_until(lambda: mesh.is_ready(admin), name)


def start_caller(mesh: RunningMesh, waypoint: Pod, host: str) -> int:
    """Starts a caller's node. Returns the port at which its requests to a Service are taken."""
    assert mesh.agent is not None
    admin, door = free_port(), free_port()
    address = mesh.objects[("Service", host)]["spec"]["clusterIP"]
    proxy = caller_proxy(
        "apps/nightly", mesh.agent.port, admin, door, waypoint.ip, f"{address}:8000"
    )
    mesh.start_proxy("node-of-the-caller", proxy)
    wait_until(lambda: mesh.is_ready(admin), "the caller's node")
    return door
