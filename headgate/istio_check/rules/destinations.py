"""Do destinations resolve to pods, and are connections to model servers kept safely?"""

from collections.abc import Iterator, Mapping

from headgate.core.durations import go_seconds
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import (
    Mesh,
    Service,
    full_host,
    is_selected,
    speaks_grpc,
    speaks_http,
)
from headgate.istio_check.routing import Destination, Route, routes
from headgate.policy.problems import hint

VLLM_KEEP_ALIVE_S = 5
"""vLLM closes a connection that has been idle for this long."""


def destinations(mesh: Mesh) -> Iterator[Finding]:
    """Every destination has a host, port and subset that exist."""
    for route in routes(mesh):
        for destination in route.destinations:
            if destination.written:
                yield from _host(mesh, route, destination)


def subsets(mesh: Mesh) -> Iterator[Finding]:
    """Some pods carry the labels of each subset."""
    for host, rules in mesh.destination_rules.items():
        service = mesh.services.get(host)
        if service is None or service.manifest.kind != "Service":
            continue
        namespace = service.manifest.namespace
        for rule in rules:
            for at, subset in enumerate(map(mapping, items(rule.spec.get("subsets")))):
                labels = {**mapping(service.selector), **mapping(subset.get("labels"))}
                if not _pods_carry(mesh, namespace, labels):
                    shown = ", ".join(f"{key}: {value}" for key, value in labels.items())
                    message = f"no pod template in {namespace} has the labels {shown}"
                    path: KeyPath = ("spec", "subsets", at, "labels")
                    remedy = "labels that pods of the Service have"
                    yield finding_at(MeshRule.SUBSET_WITHOUT_PODS, rule, path, message, remedy)


def rule_hosts(mesh: Mesh) -> Iterator[Finding]:
    """A DestinationRule for a host that does not exist changes nothing.

    A collector of traces often is in no YAML of ours. The rule `tracing-service` warns of it.
    """
    known = {*mesh.services, *mesh.collectors()}
    for host, rules in mesh.destination_rules.items():
        if host not in known and not host.startswith("*"):
            for rule in rules:
                message = f"there is no service {host}" + hint(host, mesh.services)
                path: KeyPath = ("spec", "host")
                yield finding_at(
                    MeshRule.HOST_UNKNOWN, rule, path, message, "the host of a Service"
                )


def connections(mesh: Mesh) -> Iterator[Finding]:
    """We close idle connections to model servers before vLLM does, and eject failing pods."""
    for host, (route, destination) in _model_hosts(mesh).items():
        rules = mesh.destination_rules.get(host, [])
        service = mesh.services.get(host)
        if not rules and service is not None:
            message = f"{host} has no DestinationRule: idle connections are kept for an hour"
            remedy = (
                "a DestinationRule with connectionPool.http.idleTimeout: 4s and outlierDetection"
            )
            yield finding_at(
                MeshRule.IDLE_TIMEOUT, route.manifest, destination.path, message, remedy
            )
        has_several = service is None or sum(pods.replicas for pods in mesh.pods_of(service)) > 1
        for rule in rules:
            yield from _policies_of(rule, has_several=has_several)


def mutual_tls(mesh: Mesh) -> Iterator[Finding]:
    """Pods that accept only mutual TLS refuse a client whose DestinationRule turns it off."""
    strict = {
        manifest.namespace
        for manifest in mesh.kind("PeerAuthentication")
        if mapping(manifest.spec.get("mtls")).get("mode") == "STRICT"
    }
    for host, rules in mesh.destination_rules.items():
        service = mesh.services.get(host)
        if service is None or service.manifest.namespace not in strict or service.is_outside:
            continue
        for rule in rules:
            tls = mapping(mapping(rule.spec.get("trafficPolicy")).get("tls"))
            if tls.get("mode") in ("DISABLE", "SIMPLE"):
                message = f"{tls['mode']} towards {host}, whose PeerAuthentication is STRICT"
                path: KeyPath = ("spec", "trafficPolicy", "tls", "mode")
                remedy = "no tls here: istiod chooses mTLS"
                yield finding_at(MeshRule.TLS_CONFLICT, rule, path, message, remedy)


def _host(mesh: Mesh, route: Route, destination: Destination) -> Iterator[Finding]:
    path = _destination_path(route, destination)
    host = destination.host
    if "." not in destination.written:
        message = (
            f"the short name {destination.written} means {host} in every namespace that reads it"
        )
        yield finding_at(MeshRule.HOST_SHORT, route.manifest, (*path, "host"), message, host)
    service = mesh.services.get(host)
    if service is None:
        message = f"there is no service {host}" + hint(host, mesh.services)
        remedy = "the host of a Service or ServiceEntry"
        yield finding_at(MeshRule.HOST_UNKNOWN, route.manifest, (*path, "host"), message, remedy)
        return
    yield from _port(route, destination, service, path)
    known = _subsets(mesh, host)
    subset = destination.subset
    if subset and subset not in known:
        message = f"no DestinationRule of {host} has a subset {subset}" + hint(subset, known)
        remedy = f"one of: {', '.join(known) or 'there is none'}"
        yield finding_at(
            MeshRule.SUBSET_UNKNOWN, route.manifest, (*path, "subset"), message, remedy
        )


def _destination_path(route: Route, destination: Destination) -> KeyPath:
    if route.manifest.kind == "VirtualService" and not destination.is_mirror:
        return (*destination.path, "destination")
    return destination.path


def _port(
    route: Route, destination: Destination, service: Service, path: KeyPath
) -> Iterator[Finding]:
    ports = {port.number: port for port in service.ports}
    if destination.port is None:
        if len(ports) > 1:
            message = f"{destination.host} has several ports: {', '.join(map(str, ports))}"
            remedy = "port: {number: ...}"
            yield finding_at(MeshRule.PORT_UNKNOWN, route.manifest, path, message, remedy)
        return
    port = ports.get(destination.port)
    if port is None:
        message = f"{destination.host} has no port {destination.port}"
        remedy = f"one of: {', '.join(map(str, ports)) or 'there is none'}"
        yield finding_at(MeshRule.PORT_UNKNOWN, route.manifest, (*path, "port"), message, remedy)
    elif route.models and (speaks_grpc(port) or not speaks_http(port)):
        message = f"port {port.number} declares {port.shown}, but vLLM speaks HTTP/1.1"
        at = _port_index(service, port.number)
        port_path: KeyPath = ("spec", "ports", at, "name")
        yield finding_at(MeshRule.PORT_PROTOCOL, service.manifest, port_path, message, "name: http")


def _port_index(service: Service, number: int) -> int:
    ports = [mapping(port) for port in items(service.manifest.spec.get("ports"))]
    return next((at for at, port in enumerate(ports) if number in port.values()), 0)


def _subsets(mesh: Mesh, host: str) -> list[str]:
    return [
        text(mapping(subset).get("name"))
        for rule in mesh.destination_rules.get(host, [])
        for subset in items(rule.spec.get("subsets"))
    ]


def _pods_carry(mesh: Mesh, namespace: str, labels: Mapping[str, object]) -> bool:
    return any(
        pods.namespace == namespace and is_selected(labels, pods.labels) for pods in mesh.pods
    )


def _model_hosts(mesh: Mesh) -> dict[str, tuple[Route, Destination]]:
    hosts: dict[str, tuple[Route, Destination]] = {}
    for route in routes(mesh):
        if not route.models or route.manifest.kind == "Canary":
            continue
        for destination in route.destinations:
            if destination.written:
                host = full_host(destination.host, route.manifest.namespace)
                hosts.setdefault(host, (route, destination))
    return hosts


def _policies_of(rule: Manifest, *, has_several: bool) -> Iterator[Finding]:
    """Checks a DestinationRule's own traffic policy, and that of each subset that has one.

    Each block of a subset's policy replaces the rule's whole block of the same name.
    """
    general = mapping(rule.spec.get("trafficPolicy"))
    yield from _policy(rule, ("spec", "trafficPolicy"), general, has_several=has_several)
    for at, subset in enumerate(map(mapping, items(rule.spec.get("subsets")))):
        own = mapping(subset.get("trafficPolicy"))
        if own:
            path: KeyPath = ("spec", "subsets", at, "trafficPolicy")
            yield from _policy(rule, path, {**general, **own}, has_several=has_several)


def _policy(
    rule: Manifest, path: KeyPath, policy: Mapping[str, object], *, has_several: bool
) -> Iterator[Finding]:
    """Checks one traffic policy. A single pod is not ejected: no other pod could take over."""
    http = mapping(mapping(policy.get("connectionPool")).get("http"))
    idle = go_seconds(http.get("idleTimeout"))
    if idle is None or idle >= VLLM_KEEP_ALIVE_S or idle == 0:
        kept = text(http.get("idleTimeout")) or "1h"
        message = (
            f"idle connections are kept for {kept}, but vLLM closes them after 5 s:"
            " requests get lost"
        )
        idle_path: KeyPath = (*path, "connectionPool", "http", "idleTimeout")
        yield finding_at(MeshRule.IDLE_TIMEOUT, rule, idle_path, message, "idleTimeout: 4s")
    if has_several and policy.get("outlierDetection") is None:
        message = "a pod whose engine is dead answers 500 at once and draws all traffic"
        remedy = "outlierDetection: {consecutive5xxErrors: 3, interval: 2s, baseEjectionTime: 30s}"
        outlier_path: KeyPath = (*path, "outlierDetection")
        yield finding_at(MeshRule.NO_OUTLIER_DETECTION, rule, outlier_path, message, remedy)
