"""Is the Envoy configuration in EnvoyFilters what Envoy and Istio's build of it take?"""

from collections.abc import Iterator, Mapping

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener, ListenerFilter
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from headgate.dataplane.strict import faults
from headgate.istio_check.attachments import Patch, patches_of
from headgate.istio_check.extensions import is_absent, matching_versions, since
from headgate.istio_check.findings import Finding, Rule, found
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
"""What the value of a patch is, by `applyTo`."""

_CLUSTER_KEYS = ("cluster_name", "clusterName", "cluster")
_OF_ISTIO = ("xds-grpc", "sds-grpc", "agent", "prometheus_stats", "BlackHoleCluster")
_MAX_DEPTH = 40


def typed_config(mesh: Mesh) -> Iterator[Finding]:
    """Every field exists: istiod drops one that it does not know, without a word."""
    for one in _patches(mesh):
        kind = MESSAGES.get(one.to)
        if kind is None:
            what = f"{one.to or 'nothing'} is nothing that can be patched"
            write = f"one of: {', '.join(MESSAGES)}"
            yield found(Rule.TYPED_CONFIG, one.manifest, (*one.path, "applyTo"), what, write)
            continue
        for fault in faults(kind, one.value):
            if not _is_absent_type(one, fault.path):
                path: KeyPath = (*_value(one), *fault.path)
                yield found(Rule.TYPED_CONFIG, one.manifest, path, fault.problem, fault.write)


def extensions(mesh: Mesh) -> Iterator[Finding]:
    """Every extension is compiled into Istio's Envoy: a proxy refuses the listener otherwise."""
    for one in _patches(mesh):
        for path, key, value in strings(one.value):
            if key not in ("@type", "type_url", "typeUrl"):
                continue
            name = value.rpartition("/")[2]
            where: KeyPath = (*_value(one), *path)
            if is_absent(name):
                what = f"{name} is in no Envoy of Istio 1.29 to 1.31: proxies refuse the listener"
                write = "an extension that Istio's build has, or the ext_proc service"
                yield found(Rule.EXTENSION_ABSENT, one.manifest, where, what, write)
            first = since(name)
            old = [
                each
                for each in matching_versions(one.proxy_version)
                if first is not None and each < first
            ]
            if old:
                what = f"{name} came with Istio {first}; the patch goes to {', '.join(old)}, too"
                write = f"a proxyVersion from {first} on"
                yield found(Rule.EXTENSION_ABSENT, one.manifest, where, what, write)


def clusters(mesh: Mesh) -> Iterator[Finding]:
    """Clusters of Services are named as istiod names them, and are there."""
    added = {one.name for one in _patches(mesh) if one.to == "CLUSTER" and one.operation == "ADD"}
    for one in _patches(mesh):
        for path, key, value in strings(one.value):
            if key in _CLUSTER_KEYS and value not in added and value not in _OF_ISTIO:
                where: KeyPath = (*_value(one), *path)
                for what, write in _cluster_faults(mesh, value):
                    yield found(Rule.CLUSTER_UNKNOWN, one.manifest, where, what, write)


def clusters_named(one: Patch) -> Iterator[str]:
    """The hosts of the clusters that a patch uses."""
    for _, key, value in strings(one.value):
        if key in _CLUSTER_KEYS and value.startswith("outbound|"):
            yield value.rpartition("|")[2]


def strings(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str, str]]:
    """Every text within a value, with its path and its key."""
    if len(path) > _MAX_DEPTH:
        return
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, Mapping):
        inner = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, each in inner:
        if isinstance(each, str):
            yield (*path, key), str(key), each
        else:
            yield from strings(each, (*path, key))


def _patches(mesh: Mesh) -> Iterator[Patch]:
    for one in mesh.kind("EnvoyFilter"):
        yield from patches_of(one)


def _value(one: Patch) -> KeyPath:
    return (*one.path, "patch", "value")


def _is_absent_type(one: Patch, path: KeyPath) -> bool:
    """A type that Envoy's API does not have and Istio's build neither is told once."""
    value: object = one.value
    for part in path:
        value = items(value)[part] if isinstance(part, int) else mapping(value).get(part)
    return bool(path) and path[-1] == "@type" and is_absent(text(value).rpartition("/")[2])


def _cluster_faults(mesh: Mesh, value: str) -> Iterator[tuple[str, str]]:
    parts = value.split("|")
    if parts[0] != "outbound" or len(parts) != 4:
        what = f"{value} is the name of no cluster that istiod makes"
        yield what, "outbound|PORT||HOST, as outbound|9001||headgate.headgate.svc.cluster.local"
        return
    _, number, subset, host = parts
    service = mesh.services.get(host)
    if service is None:
        yield f"there is no service {host}" + hint(host, mesh.services), "the host of a Service"
        return
    port = next((one for one in service.ports if str(one.number) == number), None)
    if port is None:
        numbers = ", ".join(str(one.number) for one in service.ports)
        yield f"{host} has no port {number}", f"one of: {numbers}"
    elif not speaks_grpc(port):
        what = f"port {number} of {host} is called {port.shown}: istiod speaks no gRPC to it"
        yield what, "a port that is named grpc-..."
    subsets = [
        text(mapping(one).get("name"))
        for rule in mesh.destination_rules.get(host, [])
        for one in items(rule.spec.get("subsets"))
    ]
    if subset and subset not in subsets:
        yield f"{host} has no subset {subset}" + hint(subset, subsets), "outbound|PORT||HOST"
