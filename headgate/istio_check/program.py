"""The containers that run `headgate serve`: their options, mounted volumes and Sidecars."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headgate.istio_check.attachments import chosen_labels
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import ROOT_NAMESPACE, Mesh, Service, is_selected, pod_templates

_COMMAND = "serve"
_LOCAL = ("127.", "[::1]", "localhost")


@dataclass(frozen=True, slots=True)
class Option:
    """The value of an option, and its path in the object."""

    path: KeyPath
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One container of the services.

    `options` are by name, as `--api`. `volumes` has whether each mounted path may be written.
    """

    manifest: Manifest
    path: KeyPath
    labels: Mapping[str, object]
    options: Mapping[str, Option]
    volumes: Mapping[str, bool]

    def is_chosen_by(self, chooser: Manifest) -> bool:
        """Whether an object with a selector applies to these pods."""
        near = chooser.namespace in (self.manifest.namespace, ROOT_NAMESPACE)
        return near and is_selected(chosen_labels(chooser), self.labels)

    def is_behind(self, service: Service) -> bool:
        """Whether a Service leads to these pods."""
        near = service.manifest.namespace == self.manifest.namespace
        return near and bool(service.selector) and is_selected(service.selector, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The management API of a program: its option, and the port by which the mesh reaches it.

    `ports` is empty for one that only the pod itself can reach.
    """

    program: Program
    option: Option
    ports: frozenset[int]

    @property
    def is_local(self) -> bool:
        """Whether it listens on the pod's own loopback address."""
        return self.option.value.startswith(_LOCAL)


def programs(mesh: Mesh) -> Iterator[Program]:
    """Every container of the services in the YAML."""
    for manifest in mesh.manifests:
        for path, template in pod_templates(manifest):
            containers = items(mapping(template.get("spec")).get("containers"))
            labels = mapping(mapping(template.get("metadata")).get("labels"))
            for at, container in enumerate(map(mapping, containers)):
                if _COMMAND in items(container.get("args")):
                    place: KeyPath = (*path, "spec", "containers", at)
                    yield _program(manifest, place, labels, container)


def apis(mesh: Mesh) -> Iterator[Api]:
    """The management API of every program that serves one."""
    for program in programs(mesh):
        option = program.options.get("--api")
        if option is not None:
            yield Api(program=program, option=option, ports=_ports(mesh, program, option.value))


def sidecars(mesh: Mesh, program: Program) -> Iterator[Manifest]:
    """The Sidecars that apply to these pods."""
    return (each for each in mesh.kind("Sidecar") if program.is_chosen_by(each))


def ingress_ports(sidecar: Manifest) -> dict[int, str]:
    """The ports that a Sidecar takes, each with the address to which it passes them on."""
    taken = {}
    for entry in map(mapping, items(sidecar.spec.get("ingress"))):
        number = mapping(entry.get("port")).get("number")
        if isinstance(number, int):
            taken[number] = text(entry.get("defaultEndpoint"))
    return taken


def port_of(address: str) -> int:
    """The number at the end of `host:port`, 0 without one."""
    port = address.rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() else 0


def _ports(mesh: Mesh, program: Program, address: str) -> frozenset[int]:
    own = port_of(address)
    passed = {
        number
        for sidecar in sidecars(mesh, program)
        for number, endpoint in ingress_ports(sidecar).items()
        if port_of(endpoint) == own
    }
    return frozenset(passed) if address.startswith(_LOCAL) else frozenset({*passed, own})


def _program(
    manifest: Manifest, path: KeyPath, labels: Mapping[str, object], container: Mapping[str, object]
) -> Program:
    mounts = map(mapping, items(container.get("volumeMounts")))
    return Program(
        manifest=manifest,
        path=path,
        labels=labels,
        options=dict(_options(container, path)),
        volumes={text(one.get("mountPath")): one.get("readOnly") is not True for one in mounts},
    )


def _options(container: Mapping[str, object], path: KeyPath) -> Iterator[tuple[str, Option]]:
    """Each option, as `--name=value` or as two words."""
    words = [text(word) for word in items(container.get("args"))]
    for at, word in enumerate(words):
        name, has_value, value = word.partition("=")
        if not name.startswith("--"):
            continue
        if not has_value and at + 1 < len(words):
            value = words[at + 1]
        yield name, Option((*path, "args", at), value)
