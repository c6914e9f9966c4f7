"""Do Envoy and Istio's build of it accept the configuration in EnvoyFilters?"""

from collections.abc import Iterator

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener, ListenerFilter
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from headgate.dataplane.strict import faults
from headgate.istio_check.attachments import Patch, all_patches
from headgate.istio_check.clusters import CLUSTER_KEYS, strings
from headgate.istio_check.extensions import is_absent, matching_versions, since
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, items, mapping, text
from headgate.istio_check.mesh import Mesh, speaks_grpc
from headgate.policy.problems import hint

MESSAGES: dict[str, type[betterproto2.Message]] = {
    "LISTENER": Listener,
    "FILTER_CHAIN": FilterChain,
    "LISTENER_FILTER": ListenerFilter,
    "NETWORK_FILTER": Filter,
    "HTTP_FILTER": HttpFilter,
    "ROUTE_CONFIGURATION": RouteConfiguration,
    "VIRTUAL_HOST": VirtualHost,
    "HTTP_ROUTE": Route,
    "CLUSTER": Cluster,
    "EXTENSION_CONFIG": TypedExtensionConfig,
    "BOOTSTRAP": Bootstrap,
}
"""The message of Envoy that the value of a patch must be, by `applyTo`."""

_OF_ISTIO = ("xds-grpc", "sds-grpc", "agent", "prometheus_stats", "BlackHoleCluster")
_TYPE_KEYS = ("@type", "type_url", "typeUrl")


def typed_config(mesh: Mesh) -> Iterator[Finding]:
    """Every field exists: istiod silently drops a field that it does not know."""
    for patch in all_patches(mesh):
        kind = MESSAGES.get(patch.apply_to)
        if kind is None:
            message = f"istiod cannot patch {patch.apply_to or 'an object without applyTo'}"
            remedy = f"one of: {', '.join(MESSAGES)}"
            path: KeyPath = (*patch.path, "applyTo")
            yield finding_at(MeshRule.TYPED_CONFIG, patch.manifest, path, message, remedy)
            continue
        for fault in faults(kind, patch.value):
            if not _is_absent_type(patch, fault.path):
                path = (*_value_path(patch), *fault.path)
                yield finding_at(
                    MeshRule.TYPED_CONFIG, patch.manifest, path, fault.problem, fault.write
                )


def extensions(mesh: Mesh) -> Iterator[Finding]:
    """Istio's Envoy has every extension compiled in; otherwise proxies refuse the listener."""
    for patch in all_patches(mesh):
        for path, key, value in strings(patch.value):
            if key not in _TYPE_KEYS:
                continue
            name = value.rpartition("/")[2]
            for message, remedy in _extension_faults(patch, name):
                full_path: KeyPath = (*_value_path(patch), *path)
                yield finding_at(
                    MeshRule.EXTENSION_ABSENT, patch.manifest, full_path, message, remedy
                )


def clusters(mesh: Mesh) -> Iterator[Finding]:
    """Clusters of Services have the names that istiod gives them, and exist."""
    added = {
        patch.name
        for patch in all_patches(mesh)
        if patch.apply_to == "CLUSTER" and patch.operation == "ADD"
    }
    for patch in all_patches(mesh):
        for path, key, value in strings(patch.value):
            if key in CLUSTER_KEYS and value not in added and value not in _OF_ISTIO:
                full_path: KeyPath = (*_value_path(patch), *path)
                for message, remedy in _cluster_faults(mesh, value, patch.apply_to):
                    yield finding_at(
                        MeshRule.CLUSTER_UNKNOWN, patch.manifest, full_path, message, remedy
                    )


def _value_path(patch: Patch) -> KeyPath:
    return (*patch.path, "patch", "value")


def _is_absent_type(patch: Patch, path: KeyPath) -> bool:
    """Whether the rule `extension-absent` reports the type, which Envoy's API lacks as well."""
    value: object = patch.value
    for key in path:
        value = items(value)[key] if isinstance(key, int) else mapping(value).get(key)
    return bool(path) and path[-1] == "@type" and is_absent(text(value).rpartition("/")[2])


def _extension_faults(patch: Patch, name: str) -> Iterator[tuple[str, str]]:
    """The message and remedy of each fault of an extension's type."""
    if is_absent(name):
        message = f"Envoy in Istio 1.29 to 1.31 has no {name}: proxies refuse the listener"
        yield message, "an extension that Istio's build has, or the ext_proc service"
    first = since(name)
    if first is not None:
        older = [each for each in matching_versions(patch.proxy_version) if each < first]
        if older:
            message = f"{name} needs Istio {first}, but the patch also goes to {', '.join(older)}"
            yield message, f"a proxyVersion from {first} on"


def _cluster_faults(mesh: Mesh, cluster: str, apply_to: str) -> Iterator[tuple[str, str]]:
    """The message and remedy of each fault of a cluster's name. Filters call clusters by gRPC."""
    parts = cluster.split("|")
    if parts[0] != "outbound" or len(parts) != 4:
        message = f"istiod makes no cluster with the name {cluster}"
        yield message, "outbound|PORT||HOST, as outbound|9001||headgate.headgate.svc.cluster.local"
        return
    _, number, subset, host = parts
    service = mesh.services.get(host)
    if service is None:
        yield f"there is no service {host}" + hint(host, mesh.services), "the host of a Service"
        return
    port = next((port for port in service.ports if str(port.number) == number), None)
    if port is None:
        numbers = ", ".join(str(port.number) for port in service.ports)
        yield f"{host} has no port {number}", f"one of: {numbers}"
    elif apply_to != "HTTP_ROUTE" and not speaks_grpc(port):
        message = f"port {number} of {host} declares {port.shown}: istiod does not speak gRPC to it"
        yield message, "a port with a name of the form grpc-..."
    subsets = [
        text(mapping(entry).get("name"))
        for rule in mesh.destination_rules.get(host, [])
        for entry in items(rule.spec.get("subsets"))
    ]
    if subset and subset not in subsets:
        yield f"{host} has no subset {subset}" + hint(subset, subsets), "outbound|PORT||HOST"
