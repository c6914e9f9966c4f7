"""Do destinations resolve: host, port, protocol, subset, pods? And how are connections kept?"""

from collections.abc import Iterator, Mapping

from headgate.istio_check.findings import Finding, Rule, found
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
from headgate.istio_check.rules.routes import seconds
from headgate.policy.problems import hint

VLLM_KEEP_ALIVE_S = 5
"""vLLM closes a connection that is idle for so long."""


def destinations(mesh: Mesh) -> Iterator[Finding]:
    """Host, port and subset of every destination."""
    for route in routes(mesh):
        for one in route.destinations:
            if one.written:
                yield from _host(mesh, route, one)


def subsets(mesh: Mesh) -> Iterator[Finding]:
    """Each subset is carried by pods."""
    for host, rules in mesh.destination_rules.items():
        service = mesh.services.get(host)
        if service is None or service.manifest.kind != "Service":
            continue
        for rule in rules:
            for at, subset in enumerate(map(mapping, items(rule.spec.get("subsets")))):
                labels = {**mapping(service.selector), **mapping(subset.get("labels"))}
                if not _pods_carry(mesh, service.manifest.namespace, labels):
                    shown = ", ".join(f"{key}: {value}" for key, value in labels.items())
                    what = f"no pod template in {service.manifest.namespace} carries {shown}"
                    path: KeyPath = ("spec", "subsets", at, "labels")
                    write = "labels that pods of the Service carry"
                    yield found(Rule.SUBSET_WITHOUT_PODS, rule, path, what, write)


def rule_hosts(mesh: Mesh) -> Iterator[Finding]:
    """A DestinationRule for a host that is not there changes nothing."""
    for host, rules in mesh.destination_rules.items():
        if host not in mesh.services and not host.startswith("*"):
            for rule in rules:
                what = f"there is no service {host}" + hint(host, mesh.services)
                path: KeyPath = ("spec", "host")
                yield found(Rule.HOST_UNKNOWN, rule, path, what, "the host of a Service")


def connections(mesh: Mesh) -> Iterator[Finding]:
    """Connections to model servers: idle ones are closed by us first, sick pods are left out."""
    for host, (route, destination) in _model_hosts(mesh).items():
        rules = mesh.destination_rules.get(host, [])
        if not rules and host in mesh.services:
            what = f"{host} has no DestinationRule: idle connections are kept for an hour"
            write = (
                "a DestinationRule with connectionPool.http.idleTimeout: 4s and outlierDetection"
            )
            yield found(Rule.IDLE_TIMEOUT, route.manifest, destination.path, what, write)
        for rule in rules:
            service = mesh.services.get(host)
            several = service is None or sum(one.replicas for one in mesh.pods_of(service)) > 1
            yield from _policy(rule, ("spec", "trafficPolicy"), {}, several=several)
            general = mapping(rule.spec.get("trafficPolicy"))
            for at, subset in enumerate(map(mapping, items(rule.spec.get("subsets")))):
                if mapping(subset.get("trafficPolicy")):
                    path: KeyPath = ("spec", "subsets", at, "trafficPolicy")
                    yield from _policy(rule, path, general, several=several)


def mutual_tls(mesh: Mesh) -> Iterator[Finding]:
    """Who turns TLS off towards pods that take nothing else is refused by them."""
    strict = {
        one.namespace
        for one in mesh.kind("PeerAuthentication")
        if mapping(one.spec.get("mtls")).get("mode") == "STRICT"
    }
    for host, rules in mesh.destination_rules.items():
        service = mesh.services.get(host)
        if service is None or service.manifest.namespace not in strict:
            continue
        for rule in rules:
            tls = mapping(mapping(rule.spec.get("trafficPolicy")).get("tls"))
            if tls.get("mode") in ("DISABLE", "SIMPLE"):
                what = f"{tls['mode']} towards {host}, whose PeerAuthentication is STRICT"
                path: KeyPath = ("spec", "trafficPolicy", "tls", "mode")
                yield found(Rule.TLS_CONFLICT, rule, path, what, "no tls here: istiod chooses mTLS")


def _host(mesh: Mesh, route: Route, one: Destination) -> Iterator[Finding]:
    manifest = route.manifest
    is_virtual = manifest.kind == "VirtualService"
    path: KeyPath = (
        (*one.path, *(() if one.is_mirror else ("destination",))) if is_virtual else one.path
    )
    if "." not in one.written:
        what = f"{one.written} is short: it means {one.host}, whatever namespace reads it"
        yield found(Rule.HOST_SHORT, manifest, (*path, "host"), what, one.host)
    service = mesh.services.get(one.host)
    if service is None:
        what = f"there is no service {one.host}" + hint(one.host, mesh.services)
        write = "the host of a Service or ServiceEntry"
        yield found(Rule.HOST_UNKNOWN, manifest, (*path, "host"), what, write)
        return
    yield from _port(route, one, service, path)
    if one.subset and one.subset not in _subsets(mesh, one.host):
        known = _subsets(mesh, one.host)
        what = f"no DestinationRule of {one.host} has a subset {one.subset}" + hint(
            one.subset, known
        )
        write = f"one of: {', '.join(known) or 'none is there'}"
        yield found(Rule.SUBSET_UNKNOWN, manifest, (*path, "subset"), what, write)


def _port(route: Route, one: Destination, service: Service, path: KeyPath) -> Iterator[Finding]:
    ports = {port.number: port for port in service.ports}
    if one.port is None:
        if len(ports) > 1:
            what = f"{one.host} has several ports: {', '.join(map(str, ports))}"
            yield found(Rule.PORT_UNKNOWN, route.manifest, path, what, "port: {number: ...}")
        return
    port = ports.get(one.port)
    if port is None:
        what = f"{one.host} has no port {one.port}"
        write = f"one of: {', '.join(map(str, ports)) or 'none is there'}"
        yield found(Rule.PORT_UNKNOWN, route.manifest, (*path, "port"), what, write)
    elif route.models and (speaks_grpc(port) or not speaks_http(port)):
        what = f"port {port.number} is called {port.shown}, and vLLM speaks HTTP/1.1"
        at = _port_index(service, port.number)
        place: KeyPath = ("spec", "ports", at, "name")
        yield found(Rule.PORT_PROTOCOL, service.manifest, place, what, "name: http")


def _port_index(service: Service, number: int) -> int:
    ports = [mapping(one) for one in items(service.manifest.spec.get("ports"))]
    return next((at for at, one in enumerate(ports) if number in one.values()), 0)


def _subsets(mesh: Mesh, host: str) -> list[str]:
    return [
        text(mapping(subset).get("name"))
        for rule in mesh.destination_rules.get(host, [])
        for subset in items(rule.spec.get("subsets"))
    ]


def _pods_carry(mesh: Mesh, namespace: str, labels: Mapping[str, object]) -> bool:
    return any(one.namespace == namespace and is_selected(labels, one.labels) for one in mesh.pods)


def _model_hosts(mesh: Mesh) -> dict[str, tuple[Route, Destination]]:
    hosts: dict[str, tuple[Route, Destination]] = {}
    for route in routes(mesh):
        for one in route.destinations if route.models else ():
            if one.written and route.manifest.kind != "Canary":
                hosts.setdefault(full_host(one.host, route.manifest.namespace), (route, one))
    return hosts


def _policy(
    rule: Manifest, path: KeyPath, inherited: Mapping[str, object], *, several: bool
) -> Iterator[Finding]:
    """A subset's block takes the place of the whole block of the same name. Of one pod none can be
    left out."""
    value: object = rule.value
    for part in path:
        value = items(value)[part] if isinstance(part, int) else mapping(value).get(part)
    own = {**inherited, **mapping(value)}
    http = mapping(mapping(own.get("connectionPool")).get("http"))
    idle = seconds(http.get("idleTimeout"))
    if idle is None or idle >= VLLM_KEEP_ALIVE_S or idle == 0:
        kept = text(http.get("idleTimeout")) or "1h"
        what = (
            f"idle connections are kept for {kept}; vLLM closes them after 5 s: requests get lost"
        )
        where: KeyPath = (*path, "connectionPool", "http", "idleTimeout")
        yield found(Rule.IDLE_TIMEOUT, rule, where, what, "idleTimeout: 4s")
    if several and not mapping(own.get("outlierDetection")):
        what = "a pod whose engine is dead answers 500 at once and draws all traffic"
        write = "outlierDetection: {consecutive5xxErrors: 3, interval: 2s, baseEjectionTime: 30s}"
        yield found(Rule.NO_OUTLIER_DETECTION, rule, (*path, "outlierDetection"), what, write)
