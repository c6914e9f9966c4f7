"""Can proxies reach the services, and gateways the model servers?"""

import fnmatch
from collections.abc import Iterator, Mapping

from headgate.istio_check.attachments import Attachment, our_attachments
from headgate.istio_check.clusters import clusters_named
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, Service, is_selected
from headgate.istio_check.routing import routes

_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def network_policies(mesh: Mesh) -> Iterator[Finding]:
    """Kubernetes lets the calls through; it drops the packets of a refused call silently."""
    for service, number, namespace in _calls(mesh):
        policies = [
            policy
            for policy in mesh.kind("NetworkPolicy")
            if _limits_inbound(mesh, policy, service)
        ]
        labels = {_NAMESPACE_LABEL: namespace, **_namespace_labels(mesh, namespace)}
        if policies and not any(
            _admits_packets(policy, service, number, labels) for policy in policies
        ):
            message = f"calls from {namespace} to port {number} of {service.host} are dropped"
            remedy = f"an ingress rule for {_NAMESPACE_LABEL}: {namespace} and port {number}"
            path: KeyPath = ("spec", "ingress")
            yield finding_at(MeshRule.NETWORK_POLICY, policies[0], path, message, remedy)


def authorization_policies(mesh: Mesh) -> Iterator[Finding]:
    """Istio lets the calls through; beside an ALLOW policy it refuses every other call."""
    for service, number, namespace in _calls(mesh):
        policies = [
            policy
            for policy in mesh.kind("AuthorizationPolicy")
            if policy.spec.get("action", "ALLOW") == "ALLOW"
            and policy.namespace == service.manifest.namespace
            and _chooses(mesh, service, mapping(policy.spec.get("selector")))
            and not policy.spec.get("targetRefs")
        ]
        if policies and not any(admits(policy, number, namespace) for policy in policies):
            message = f"calls from {namespace} to port {number} of {service.host} get 403"
            remedy = f'a rule from namespaces ["{namespace}"] to ports ["{number}"]'
            path: KeyPath = ("spec", "rules")
            yield finding_at(MeshRule.AUTHORIZATION_POLICY, policies[0], path, message, remedy)


def sidecar_egress(mesh: Mesh) -> Iterator[Finding]:
    """A Sidecar that lists hosts lists our services; otherwise their clusters do not exist."""
    for attached in our_attachments(mesh):
        if attached.targets or "GATEWAY" in attached.contexts:
            continue
        for sidecar in mesh.kind("Sidecar"):
            if attached.is_chosen_by(sidecar):
                yield from _egress_of(sidecar, attached)


def _egress_of(sidecar: Manifest, attached: Attachment) -> Iterator[Finding]:
    hosts = {host for patch in attached.patches for host in clusters_named(patch)}
    listed = [
        text(host)
        for egress in items(sidecar.spec.get("egress"))
        for host in items(mapping(egress).get("hosts"))
    ]
    for host in sorted(hosts):
        if listed and not any(_exports(entry, host, sidecar.namespace) for entry in listed):
            message = f"{host} is not among the hosts, so the filters' calls have no cluster"
            path: KeyPath = ("spec", "egress")
            remedy = f"{host.split('.')[1]}/* among the hosts"
            yield finding_at(MeshRule.SIDECAR_EGRESS, sidecar, path, message, remedy)


def _calls(mesh: Mesh) -> Iterator[tuple[Service, int, str]]:
    """Each call that must pass, once: the service, its port and the namespace of the caller."""
    seen = set()
    for service, number, namespace in (*_calls_of_filters(mesh), *_calls_of_gateways(mesh)):
        if (service.host, namespace) not in seen:
            seen.add((service.host, namespace))
            yield service, number, namespace


def _calls_of_filters(mesh: Mesh) -> Iterator[tuple[Service, int, str]]:
    for attached in our_attachments(mesh):
        for patch in attached.patches:
            for host in clusters_named(patch):
                service = mesh.services.get(host)
                for port in service.ports if service else ():
                    if "grpc" in port.name and service:
                        yield service, port.number, attached.namespace


def _calls_of_gateways(mesh: Mesh) -> Iterator[tuple[Service, int, str]]:
    gateways = {
        attached.namespace for attached in our_attachments(mesh) if "GATEWAY" in attached.contexts
    }
    for route in routes(mesh):
        for destination in route.destinations if route.models else ():
            service = mesh.services.get(destination.host)
            if service is None or not service.selector:
                continue
            number = destination.port or 0
            if number in {port.number for port in service.ports}:
                for namespace in gateways:
                    yield service, number, namespace


def _chooses(mesh: Mesh, service: Service, selector: Mapping[str, object]) -> bool:
    labels = selector.get("matchLabels")
    return any(is_selected(labels, pods) for pods in mesh.labels_of(service))


def _limits_inbound(mesh: Mesh, policy: Manifest, service: Service) -> bool:
    selector = mapping(policy.spec.get("podSelector"))
    types = items(policy.spec.get("policyTypes"))
    return (
        policy.namespace == service.manifest.namespace
        and "matchExpressions" not in selector
        and _chooses(mesh, service, selector)
        and (not types or "Ingress" in types)
    )


def _namespace_labels(mesh: Mesh, namespace: str) -> Mapping[str, object]:
    for manifest in mesh.kind("Namespace"):
        if manifest.name == namespace:
            return mapping(mapping(manifest.value.get("metadata")).get("labels"))
    return {}


def _admits_packets(
    policy: Manifest, service: Service, number: int, labels: Mapping[str, object]
) -> bool:
    for rule in map(mapping, items(policy.spec.get("ingress"))):
        sources = [mapping(source) for source in items(rule.get("from"))]
        ports = [mapping(port).get("port") for port in items(rule.get("ports"))]
        names = {number, *(port.name for port in service.ports if port.number == number)}
        if ports and not names & {port for port in ports if isinstance(port, (int, str))}:
            continue
        if not sources or any(_is_source(source, labels) for source in sources):
            return True
    return False


def _is_source(source: Mapping[str, object], labels: Mapping[str, object]) -> bool:
    """A source that the files cannot resolve (addresses, expressions) counts as admitting."""
    if "ipBlock" in source:
        return True
    if "namespaceSelector" not in source:
        return False
    selector = mapping(source.get("namespaceSelector"))
    return "matchExpressions" in selector or is_selected(selector.get("matchLabels"), labels)


def admits(policy: Manifest, number: int, namespace: str) -> bool:
    """Whether an ALLOW policy lets a namespace call a port of the pods that it chooses."""
    for rule in map(mapping, items(policy.spec.get("rules"))):
        sources = [mapping(mapping(entry).get("source")) for entry in items(rule.get("from"))]
        ports = [
            text(port)
            for entry in items(rule.get("to"))
            for port in items(mapping(mapping(entry).get("operation")).get("ports"))
        ]
        if ports and str(number) not in ports:
            continue
        if not sources or any(_is_principal(source, namespace) for source in sources):
            return True
    return False


def _is_principal(source: Mapping[str, object], namespace: str) -> bool:
    """A source that the files cannot resolve, such as addresses, counts as admitting."""
    if not {"principals", "namespaces"} & set(source):
        return True
    patterns = map(text, items(source.get("principals")))
    by_name = any(_may_be_of(namespace, pattern) for pattern in patterns)
    return by_name or namespace in items(source.get("namespaces"))


def _may_be_of(namespace: str, pattern: str) -> bool:
    """Whether a pattern of principals fits any account of a namespace.

    istiod reads one `*`, at the beginning or else at the end (`StringMatcherWithPrefix`). Any other
    is an ordinary character, which no name has: `*/ns/x/sa/*` fits nobody.
    """
    wanted = f"ns/{namespace}/sa/"
    if pattern.startswith("*"):
        suffix = pattern[1:]
        return "*" not in suffix and ("/ns/" not in suffix or f"/{wanted}" in suffix)
    rest = pattern.removesuffix("*").partition("/")[2]
    if "*" in rest:
        return False
    return rest.startswith(wanted) or (pattern.endswith("*") and wanted.startswith(rest))


def _exports(entry: str, host: str, own_namespace: str) -> bool:
    namespace, _, pattern = entry.partition("/")
    namespace = own_namespace if namespace == "." else namespace
    return namespace in ("*", host.split(".")[1]) and fnmatch.fnmatchcase(host, pattern)
