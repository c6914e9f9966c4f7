"""Do proxies reach the services, and gateways the model servers?"""

import fnmatch
from collections.abc import Iterator, Mapping

from headgate.istio_check.attachments import our_places
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, Service, is_selected
from headgate.istio_check.routing import routes
from headgate.istio_check.rules.envoy import clusters_named

_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def network_policies(mesh: Mesh) -> Iterator[Finding]:
    """Kubernetes lets the calls through: the packets of a refused one just vanish."""
    for service, number, namespace in _calls(mesh):
        chosen = [one for one in mesh.kind("NetworkPolicy") if _is_inbound(mesh, one, service)]
        labels = {_NAMESPACE_LABEL: namespace, **_namespace_labels(mesh, namespace)}
        if chosen and not any(_admits_packets(one, service, number, labels) for one in chosen):
            what = f"calls from {namespace} to port {number} of {service.host} are dropped"
            write = f"an ingress rule for {_NAMESPACE_LABEL}: {namespace} and port {number}"
            yield found(Rule.NETWORK_POLICY, chosen[0], ("spec", "ingress"), what, write)


def authorization_policies(mesh: Mesh) -> Iterator[Finding]:
    """Istio lets the calls through: where there is an ALLOW policy all others are refused."""
    for service, number, namespace in _calls(mesh):
        allowing = [
            one
            for one in mesh.kind("AuthorizationPolicy")
            if one.spec.get("action", "ALLOW") == "ALLOW"
            and one.namespace == service.manifest.namespace
            and _chooses(mesh, service, mapping(one.spec.get("selector")))
            and not one.spec.get("targetRefs")
        ]
        if allowing and not any(_allows(one, number, namespace) for one in allowing):
            what = f"calls from {namespace} to port {number} of {service.host} get 403"
            write = f'a rule from principals ["*/ns/{namespace}/sa/*"] to ports ["{number}"]'
            yield found(Rule.AUTHORIZATION_POLICY, allowing[0], ("spec", "rules"), what, write)


def sidecar_egress(mesh: Mesh) -> Iterator[Finding]:
    """A Sidecar that lists what its pods call must list us: else the cluster is not there."""
    for place in our_places(mesh):
        hosts = {host for patch in place.patches for host in clusters_named(patch)}
        for one in mesh.kind("Sidecar"):
            if not place.takes(one) or place.targets or "GATEWAY" in place.contexts:
                continue
            listed = [
                text(host)
                for egress in items(one.spec.get("egress"))
                for host in items(mapping(egress).get("hosts"))
            ]
            for host in sorted(hosts):
                if listed and not any(_exports(entry, host, one.namespace) for entry in listed):
                    what = f"{host} is not among the hosts: the filters' calls have no cluster"
                    path: KeyPath = ("spec", "egress")
                    write = f"{host.split('.')[1]}/* among the hosts"
                    yield found(Rule.SIDECAR_EGRESS, one, path, what, write)


def _calls(mesh: Mesh) -> Iterator[tuple[Service, int, str]]:
    """Who calls what: the filters our services, gateways the model servers."""
    seen = set()
    for place in our_places(mesh):
        for patch in place.patches:
            for host in clusters_named(patch):
                service = mesh.services.get(host)
                for port in service.ports if service else ():
                    if "grpc" in port.name and service and (host, place.namespace) not in seen:
                        seen.add((host, place.namespace))
                        yield service, port.number, place.namespace
    gateways = {place.namespace for place in our_places(mesh) if "GATEWAY" in place.contexts}
    for route in routes(mesh):
        for one in route.destinations if route.models else ():
            service = mesh.services.get(one.host)
            for namespace in gateways if service and service.selector else ():
                number = one.port or 0
                known = service and number in {port.number for port in service.ports}
                if service and known and (one.host, namespace) not in seen:
                    seen.add((one.host, namespace))
                    yield service, number, namespace


def _chooses(mesh: Mesh, service: Service, selector: Mapping[str, object]) -> bool:
    labels = selector.get("matchLabels")
    return any(is_selected(labels, pods) for pods in mesh.labels_of(service))


def _is_inbound(mesh: Mesh, one: Manifest, service: Service) -> bool:
    selector = mapping(one.spec.get("podSelector"))
    types = items(one.spec.get("policyTypes"))
    return (
        one.namespace == service.manifest.namespace
        and "matchExpressions" not in selector
        and _chooses(mesh, service, selector)
        and (not types or "Ingress" in types)
    )


def _namespace_labels(mesh: Mesh, namespace: str) -> Mapping[str, object]:
    for one in mesh.kind("Namespace"):
        if one.name == namespace:
            return mapping(mapping(one.value.get("metadata")).get("labels"))
    return {}


def _admits_packets(
    one: Manifest, service: Service, number: int, labels: Mapping[str, object]
) -> bool:
    for rule in map(mapping, items(one.spec.get("ingress"))):
        sources = [mapping(source) for source in items(rule.get("from"))]
        ports = [mapping(port).get("port") for port in items(rule.get("ports"))]
        names = {number, *(port.name for port in service.ports if port.number == number)}
        if ports and not names & {port for port in ports if isinstance(port, (int, str))}:
            continue
        if not sources or any(_is_source(source, labels) for source in sources):
            return True
    return False


def _is_source(source: Mapping[str, object], labels: Mapping[str, object]) -> bool:
    """What cannot be told from the files is taken to admit: addresses, expressions."""
    if "ipBlock" in source:
        return True
    if "namespaceSelector" not in source:
        return False
    selector = mapping(source.get("namespaceSelector"))
    return "matchExpressions" in selector or is_selected(selector.get("matchLabels"), labels)


def _allows(one: Manifest, number: int, namespace: str) -> bool:
    principal = f"cluster.local/ns/{namespace}/sa/any"
    for rule in map(mapping, items(one.spec.get("rules"))):
        sources = [mapping(mapping(each).get("source")) for each in items(rule.get("from"))]
        ports = [
            text(port)
            for each in items(rule.get("to"))
            for port in items(mapping(mapping(each).get("operation")).get("ports"))
        ]
        if ports and str(number) not in ports:
            continue
        if not sources or any(_is_principal(each, principal, namespace) for each in sources):
            return True
    return False


def _is_principal(source: Mapping[str, object], principal: str, namespace: str) -> bool:
    """What cannot be told from the files, such as addresses, is taken to admit."""
    if not {"principals", "namespaces"} & set(source):
        return True
    patterns = [text(one) for one in items(source.get("principals"))]
    by_name = any(
        fnmatch.fnmatchcase(principal, one) or f"/ns/{namespace}/sa/" in one for one in patterns
    )
    return by_name or namespace in items(source.get("namespaces"))


def _exports(entry: str, host: str, own: str) -> bool:
    namespace, _, pattern = entry.partition("/")
    namespace = own if namespace == "." else namespace
    return namespace in ("*", host.split(".")[1]) and fnmatch.fnmatchcase(host, pattern)
