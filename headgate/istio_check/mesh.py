"""The objects of a mesh, its configuration and the policy, indexed for the rules."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from headgate.core.adapter_pools import AdapterPool
from headgate.core.pods import named_pods
from headgate.core.policy import CompiledPolicy, Model
from headgate.dataplane.box import MAX_BODY_LIMIT_BYTES
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.policy.document import YamlMapping

ROOT_NAMESPACE = "istio-system"
_TEMPLATES = ("template", "leaderTemplate", "workerTemplate", "leaderWorkerTemplate")
_MAX_TEMPLATE_DEPTH = 4


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """The compiled policy, its document (with lines) and its source text."""

    compiled: CompiledPolicy
    document: Manifest
    source: str

    @property
    def bases(self) -> dict[str, str]:
        """Each base model and its upstream."""
        models = self.compiled.models.values()
        return {model.name: model.upstream for model in models if model.base == model.name}

    @property
    def placed(self) -> list[str]:
        """The base models that have pods in the policy: their own, a version's, or a pool's."""
        return [
            model.name
            for model in self.compiled.models.values()
            if model.base == model.name and (any(named_pods(model)) or model.adapter_pool)
        ]

    @property
    def pools(self) -> list[tuple[Model, AdapterPool]]:
        """The base models on whose pods Headgate loads adapters."""
        return [
            (model, model.adapter_pool)
            for model in self.compiled.models.values()
            if model.base == model.name and model.adapter_pool is not None
        ]

    def unplaced(self, base: str) -> set[str]:
        """The versions of a base model without pods, as a spare one in another cluster."""
        versions = self.compiled.models[base].versions
        return {each.name for each in versions.all if not each.pods} if versions else set()

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """The versions of each base model that has any."""
        models = self.compiled.models.values()
        return {
            model.name: model.versions.names
            for model in models
            if model.base == model.name and model.versions
        }


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service. `protocol` is its declared protocol, "" if only the name implies one."""

    number: int
    name: str
    protocol: str

    @property
    def shown(self) -> str:
        """The word by which istiod chooses the protocol, as findings show it."""
        return self.protocol or self.name or "nothing"


@dataclass(frozen=True, slots=True)
class Service:
    """A host that requests can be sent to."""

    host: str
    manifest: Manifest
    ports: tuple[Port, ...]
    selector: Mapping[str, object]

    @property
    def is_outside(self) -> bool:
        """Whether the mesh ends before it: MESH_EXTERNAL is the default of a ServiceEntry."""
        entry = self.manifest
        return entry.kind == "ServiceEntry" and entry.spec.get("location") != "MESH_INTERNAL"


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of one template: their labels and their number."""

    namespace: str
    labels: Mapping[str, object]
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Everything that is checked. `config` is None if no mesh configuration was given.

    `chain` holds the names of the HTTP filters of the request path, in their order.
    `largest_body_bytes` is the size of the largest request body.
    """

    manifests: tuple[Manifest, ...]
    policy: PolicyDocument
    config: Manifest | None = None
    chain: tuple[str, ...] = ()
    largest_body_bytes: int = MAX_BODY_LIMIT_BYTES

    def kind(self, kind: str, group_ends: str = "") -> Iterator[Manifest]:
        """The objects of a kind; `group_ends` tells apart kinds of the same name."""
        objects = self._by_kind.get(kind, ())
        return (manifest for manifest in objects if manifest.group.endswith(group_ends))

    @cached_property
    def _by_kind(self) -> dict[str, list[Manifest]]:
        kinds: dict[str, list[Manifest]] = {}
        for manifest in self.manifests:
            kinds.setdefault(manifest.kind, []).append(manifest)
        return kinds

    @cached_property
    def services(self) -> dict[str, Service]:
        """By host: Services, ServiceEntries, and the Services that Flagger makes of a Canary."""
        return {service.host: service for service in _services(self)}

    @cached_property
    def pods(self) -> tuple[Pods, ...]:
        """The pods of every workload."""
        return tuple(pods for manifest in self.manifests for pods in _pods(manifest))

    def pods_of(self, service: Service) -> list[Pods]:
        """The pods behind a service."""
        namespace, selector = service.manifest.namespace, service.selector
        return [
            pods
            for pods in self.pods
            if selector and pods.namespace == namespace and is_selected(selector, pods.labels)
        ]

    def labels_of(self, service: Service) -> list[Mapping[str, object]]:
        """The labels of a service's pods, or its selector if no such pods are in the YAML."""
        return [pods.labels for pods in self.pods_of(service)] or [service.selector]

    @cached_property
    def destination_rules(self) -> dict[str, list[Manifest]]:
        """The DestinationRules, by full host name."""
        rules: dict[str, list[Manifest]] = {}
        for rule in self.kind("DestinationRule"):
            host = full_host(text(rule.spec.get("host")), rule.namespace)
            rules.setdefault(host, []).append(rule)
        return rules

    def providers(self) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
        """The extension providers of the mesh configuration, each with its path."""
        if self.config is not None:
            for index, entry in enumerate(items(self.config.value.get("extensionProviders"))):
                yield ("extensionProviders", index), mapping(entry)

    def collectors(self) -> Iterator[str]:
        """The hosts to which the extension providers send spans."""
        for _, provider in self.providers():
            if settings := mapping(provider.get("opentelemetry")):
                yield text(settings.get("service")).rpartition("/")[2]


def full_host(host: str, namespace: str) -> str:
    """A host as istiod completes it: a host without dots is in the object's own namespace."""
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def upstream_address(url: str) -> tuple[str, int]:
    """Host and port of an upstream's URL, which the policy file's rules have checked."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def is_selected(selector: object, labels: Mapping[str, object]) -> bool:
    """Whether the labels include all those of a selector; an empty selector chooses everything."""
    return all(labels.get(key) == value for key, value in mapping(selector).items())


def mesh_config(document: Manifest) -> Manifest:
    """The mesh configuration, also if a file has it below `meshConfig` as Helm values do."""
    inner = document.value.get("meshConfig")
    if not isinstance(inner, YamlMapping):
        return document
    return Manifest(inner, document.file, document.line)


def _services(mesh: Mesh) -> Iterator[Service]:
    for manifest in mesh.kind("Service"):
        if manifest.group == "":
            host = f"{manifest.name}.{manifest.namespace or 'default'}.svc.cluster.local"
            ports = tuple(_ports(manifest.spec.get("ports"), "port"))
            yield Service(host, manifest, ports, mapping(manifest.spec.get("selector")))
    for manifest in mesh.kind("ServiceEntry"):
        ports = tuple(_ports(manifest.spec.get("ports"), "number"))
        for entry in items(manifest.spec.get("hosts")):
            yield Service(text(entry), manifest, ports, {})
    for manifest in mesh.kind("Canary", "flagger.app"):
        yield from _services_of_canary(manifest)


def _services_of_canary(manifest: Manifest) -> Iterator[Service]:
    name, service = canary_service(manifest)
    number = whole(service.get("port"))
    ports = (Port(number, text(service.get("portName")) or "http", ""),) if number else ()
    for suffix in ("", "-primary", "-canary"):
        host = f"{name}{suffix}.{manifest.namespace}.svc.cluster.local"
        yield Service(host, manifest, ports, {})


def canary_service(manifest: Manifest) -> tuple[str, dict[str, object]]:
    """The name and the fields of the Service that Flagger makes of a Canary."""
    service = mapping(manifest.spec.get("service"))
    target = mapping(manifest.spec.get("targetRef"))
    return text(service.get("name")) or text(target.get("name")), service


def _ports(ports: object, number_key: str) -> Iterator[Port]:
    protocol_key = "appProtocol" if number_key == "port" else "protocol"
    for port in map(mapping, items(ports)):
        number = whole(port.get(number_key))
        if number is not None:
            yield Port(number, text(port.get("name")), text(port.get(protocol_key)))


def _pods(manifest: Manifest) -> Iterator[Pods]:
    if manifest.kind == "Pod":
        metadata = mapping(manifest.value.get("metadata"))
        yield Pods(manifest.namespace, mapping(metadata.get("labels")), 1)
    else:
        given = whole(manifest.spec.get("replicas"))
        replicas = 1 if given is None else given
        for _, template in pod_templates(manifest):
            labels = mapping(mapping(template.get("metadata")).get("labels"))
            if labels:
                yield Pods(manifest.namespace, labels, replicas)


def pod_templates(manifest: Manifest) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    """The path and the content of each template of pods, and a Pod itself."""
    if manifest.kind == "Pod":
        yield (), manifest.value
    yield from _templates(manifest.spec, ("spec",), _MAX_TEMPLATE_DEPTH)


def _templates(
    spec: Mapping[str, object], path: KeyPath, depth: int
) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    for key in _TEMPLATES:
        template = mapping(spec.get(key))
        if template:
            yield (*path, key), template
        if template and depth:
            yield from _templates(template, (*path, key), depth - 1)


_GRPC = re.compile(r"(grpc|grpc-web|http2|h2c)(-.*)?|kubernetes\.io/h2c", re.IGNORECASE)
_HTTP = re.compile(r"http(-.*)?|http/1\.1", re.IGNORECASE)


def speaks_grpc(port: Port) -> bool:
    """Whether istiod speaks HTTP/2 to the port, by `appProtocol` or the beginning of its name."""
    return bool(_GRPC.fullmatch(port.protocol) or _GRPC.fullmatch(port.name))


def speaks_http(port: Port) -> bool:
    """Whether istiod speaks HTTP/1.1 to the port."""
    return bool(_HTTP.fullmatch(port.protocol) or _HTTP.fullmatch(port.name))
