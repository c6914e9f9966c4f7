"""What rules look things up in: the objects of a mesh, its configuration, and the policy."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from headgate.core.policy import CompiledPolicy
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.policy.document import YamlMapping

ROOT_NAMESPACE = "istio-system"
_TEMPLATES = ("template", "leaderTemplate", "workerTemplate", "leaderWorkerTemplate")
_MAX_TEMPLATE_DEPTH = 4


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """The compiled policy file and its document, which knows the lines."""

    compiled: CompiledPolicy
    document: Manifest
    source: str

    @property
    def bases(self) -> dict[str, str]:
        """Each base model and its upstream."""
        models = self.compiled.models.values()
        return {one.name: one.upstream for one in models if one.base == one.name}

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """The versions of each base model that has some."""
        models = self.compiled.models.values()
        return {
            one.name: one.versions.names for one in models if one.base == one.name and one.versions
        }


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service. `protocol` is what it says to speak, "" where only its name does."""

    number: int
    name: str
    protocol: str

    @property
    def shown(self) -> str:
        """What istiod goes by."""
        return self.protocol or self.name or "nothing"


@dataclass(frozen=True, slots=True)
class Service:
    """A host that a request may be sent to."""

    host: str
    manifest: Manifest
    ports: tuple[Port, ...]
    selector: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of one template: the labels that they carry, and how many there are."""

    namespace: str
    labels: Mapping[str, object]
    replicas: int


@dataclass(frozen=True)
class Mesh:
    """All that is checked. `config` is None where the mesh configuration was not given;
    `chain` are the names of the HTTP filters of
    the request path, in their order, `largest_body_bytes` what a request's body may
    have."""

    manifests: tuple[Manifest, ...]
    policy: PolicyDocument
    config: Manifest | None = None
    chain: tuple[str, ...] = ()
    largest_body_bytes: int = 16 * 2**20

    def kind(self, kind: str, group_ends: str = "") -> Iterator[Manifest]:
        """The objects of a kind; `group_ends` tells kinds apart that have the same name."""
        return (one for one in self._by_kind.get(kind, ()) if one.group.endswith(group_ends))

    @cached_property
    def _by_kind(self) -> dict[str, list[Manifest]]:
        kinds: dict[str, list[Manifest]] = {}
        for one in self.manifests:
            kinds.setdefault(one.kind, []).append(one)
        return kinds

    @cached_property
    def services(self) -> dict[str, Service]:
        """By host: Services, ServiceEntries, and what Flagger makes of its Canaries."""
        return {one.host: one for one in _services(self)}

    @cached_property
    def pods(self) -> tuple[Pods, ...]:
        """Of every workload."""
        return tuple(pods for one in self.manifests for pods in _pods(one))

    def pods_of(self, service: Service) -> list[Pods]:
        """The pods behind a service."""
        namespace, selector = service.manifest.namespace, service.selector
        return [
            one
            for one in self.pods
            if selector and one.namespace == namespace and is_selected(selector, one.labels)
        ]

    def labels_of(self, service: Service) -> list[Mapping[str, object]]:
        """The labels of its pods; what it selects them by where none are here."""
        return [one.labels for one in self.pods_of(service)] or [service.selector]

    @cached_property
    def destination_rules(self) -> dict[str, list[Manifest]]:
        """By full host name."""
        rules: dict[str, list[Manifest]] = {}
        for one in self.kind("DestinationRule"):
            host = full_host(text(one.spec.get("host")), one.namespace)
            rules.setdefault(host, []).append(one)
        return rules

    def providers(self) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
        """The extension providers of the mesh configuration and where they stand."""
        if self.config is not None:
            for index, one in enumerate(items(self.config.value.get("extensionProviders"))):
                yield ("extensionProviders", index), mapping(one)


def full_host(host: str, namespace: str) -> str:
    """A host as istiod completes it: one without dots is of the object's own namespace."""
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def upstream_address(url: str) -> tuple[str, int]:
    """Host and port of an upstream's URL, which the policy has checked."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def is_selected(selector: object, labels: Mapping[str, object]) -> bool:
    """Whether all labels of a selector are there; an empty selector chooses everything."""
    return all(labels.get(key) == value for key, value in mapping(selector).items())


def mesh_config(document: Manifest) -> Manifest:
    """The mesh configuration itself, where a file has it below `meshConfig` as Helm's values do."""
    inner = document.value.get("meshConfig")
    if not isinstance(inner, YamlMapping):
        return document
    return Manifest(inner, document.file, document.line)


def _services(mesh: Mesh) -> Iterator[Service]:
    for one in mesh.kind("Service"):
        if one.group == "":
            host = f"{one.name}.{one.namespace or 'default'}.svc.cluster.local"
            ports = tuple(_ports(one.spec.get("ports"), "port"))
            yield Service(host, one, ports, mapping(one.spec.get("selector")))
    for one in mesh.kind("ServiceEntry"):
        for entry in items(one.spec.get("hosts")):
            yield Service(text(entry), one, tuple(_ports(one.spec.get("ports"), "number")), {})
    for one in mesh.kind("Canary", "flagger.app"):
        service = mapping(one.spec.get("service"))
        name = text(service.get("name")) or text(mapping(one.spec.get("targetRef")).get("name"))
        number = whole(service.get("port"))
        ports = (Port(number, text(service.get("portName")) or "http", ""),) if number else ()
        for ending in ("", "-primary", "-canary"):
            yield Service(f"{name}{ending}.{one.namespace}.svc.cluster.local", one, ports, {})


def _ports(ports: object, key: str) -> Iterator[Port]:
    for one in map(mapping, items(ports)):
        number = whole(one.get(key))
        if number is not None:
            protocol = text(one.get("appProtocol" if key == "port" else "protocol"))
            yield Port(number, text(one.get("name")), protocol)


def _pods(one: Manifest) -> Iterator[Pods]:
    if one.kind == "Pod":
        yield Pods(one.namespace, mapping(mapping(one.value.get("metadata")).get("labels")), 1)
    else:
        given = whole(one.spec.get("replicas"))
        replicas = 1 if given is None else given
        for labels in _template_labels(one.spec, _MAX_TEMPLATE_DEPTH):
            yield Pods(one.namespace, labels, replicas)


def _template_labels(spec: Mapping[str, object], depth: int) -> Iterator[Mapping[str, object]]:
    for key in _TEMPLATES:
        template = mapping(spec.get(key))
        labels = mapping(mapping(template.get("metadata")).get("labels"))
        if labels:
            yield labels
        if template and depth:
            yield from _template_labels(template, depth - 1)


_GRPC = re.compile(r"(grpc|grpc-web|http2|h2c)(-.*)?|kubernetes\.io/h2c", re.IGNORECASE)
_HTTP = re.compile(r"http(-.*)?|http/1\.1", re.IGNORECASE)


def speaks_grpc(port: Port) -> bool:
    """Whether istiod speaks HTTP/2 to the port: by `appProtocol`, else by its name's beginning."""
    return bool(_GRPC.fullmatch(port.protocol) or _GRPC.fullmatch(port.name))


def speaks_http(port: Port) -> bool:
    """Whether istiod speaks HTTP/1.1 to the port."""
    return bool(_HTTP.fullmatch(port.protocol) or _HTTP.fullmatch(port.name))
