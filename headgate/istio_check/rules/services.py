"""Do the services find their files, keep their secrets, and reach what is outside of the mesh?"""

import fnmatch
import ipaddress
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, Service
from headgate.istio_check.program import Program, programs, sidecars

_FILE_ENDINGS = ("-file", "-cert", "-key")
_WRITTEN = ("--keys-snapshot", "--records")
_FILES = ("--policy", *_WRITTEN)
_URLS = {"--database": 5432, "--store": 6379}
"""The options that name a server, each with the port of a URL without one."""
_LOCKED = "REGISTRY_ONLY"
_IN_CLUSTER = (".svc", ".svc.cluster.local")


def files(mesh: Mesh) -> Iterator[Finding]:
    """Every file that an option names is on a volume, which can be written where it must be."""
    for program in programs(mesh):
        for name, option in program.options.items():
            if not (name.endswith(_FILE_ENDINGS) or name in _FILES):
                continue
            folder = _mounted(program, option.value)
            if folder is None:
                message = f"no volume of the container holds {option.value}"
                remedy = "a volumeMount for its folder"
            elif name in _WRITTEN and not program.volumes[folder]:
                message = f"{option.value} cannot be written: its volume is read-only"
                remedy = "a volume of its own, such as an emptyDir"
            else:
                continue
            rule = MeshRule.FILE_NOT_MOUNTED
            yield finding_at(rule, program.manifest, option.path, message, remedy)


def secrets(mesh: Mesh) -> Iterator[Finding]:
    """No password is in an option, where everybody who may read the object finds it."""
    for program in programs(mesh):
        for name in _URLS:
            option = program.options.get(name)
            if option is not None and _parts(option.value).password:
                message = f"the URL of {name} holds a password, for every reader of this object"
                remedy = f"{name}-password-file, and a Secret as a volume"
                rule = MeshRule.SECRET_IN_OPTION
                yield finding_at(rule, program.manifest, option.path, message, remedy)


def ways_out(mesh: Mesh) -> Iterator[Finding]:
    """The mesh lets the services reach the issuers, the database and Redis."""
    for program in programs(mesh):
        policies = [
            policy for policy in mesh.kind("NetworkPolicy") if _limits_outbound(policy, program)
        ]
        for manifest, path, host, number in _servers(mesh, program):
            if not _is_outside(mesh, host):
                continue
            if _is_locked(mesh, program) and not _is_known(mesh, program, host, number):
                message = f"the mesh lets the services reach known hosts only, not {host}:{number}"
                remedy = "a ServiceEntry as istio/components/sso/serviceentry.yaml"
                yield finding_at(MeshRule.HOST_NOT_LET_OUT, manifest, path, message, remedy)
            if policies and not any(_lets_out(each, number) for each in policies):
                message = f"the services' packets to {host}:{number} are dropped"
                remedy = f"an egress rule for port {number}"
                where: KeyPath = ("spec", "egress")
                yield finding_at(MeshRule.HOST_NOT_LET_OUT, policies[0], where, message, remedy)


def _mounted(program: Program, file: str) -> str | None:
    """The mounted path that a file is below; None for no volume."""
    above = [str(folder) for folder in (PurePosixPath(file), *PurePosixPath(file).parents)]
    return next((folder for folder in above if folder in program.volumes), None)


def _servers(mesh: Mesh, program: Program) -> Iterator[tuple[Manifest, KeyPath, str, int]]:
    """The object and path that names a server, its host and its port."""
    for issuer in mesh.policy.compiled.issuers.values():
        parts = _parts(issuer.url)
        where: KeyPath = ("issuers", issuer.alias, "issuer")
        if _is_remote(parts.hostname):
            yield mesh.policy.document, where, str(parts.hostname), _port(parts) or 443
    for name, usual in _URLS.items():
        option = program.options.get(name)
        parts = _parts(option.value if option else "")
        if option is not None and _is_remote(parts.hostname):
            yield program.manifest, option.path, str(parts.hostname), _port(parts) or usual


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # brackets that hold no address
        return urlsplit("")


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        return None


def _is_remote(host: str | None) -> bool:
    """Whether a host is a name that the mesh must know; an address needs no name."""
    if not host or host == "localhost":
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def _is_locked(mesh: Mesh, program: Program) -> bool:
    """Whether the sidecars of these pods let known hosts out only; a Sidecar decides first."""
    own = [mapping(each.spec.get("outboundTrafficPolicy")) for each in sidecars(mesh, program)]
    modes = [text(each.get("mode")) for each in own if each]
    if not modes and mesh.config is not None:
        modes = [text(mapping(mesh.config.value.get("outboundTrafficPolicy")).get("mode"))]
    return _LOCKED in modes


def _is_known(mesh: Mesh, program: Program, host: str, number: int) -> bool:
    return any(
        fnmatch.fnmatchcase(host, known)
        and number in {port.number for port in service.ports}
        and _is_visible(service, program)
        for known, service in mesh.services.items()
    )


def _is_visible(service: Service, program: Program) -> bool:
    exports = items(service.manifest.spec.get("exportTo"))
    own = program.manifest.namespace
    is_near = service.manifest.namespace == own
    return not exports or "*" in exports or own in exports or ("." in exports and is_near)


def _is_outside(mesh: Mesh, host: str) -> bool:
    """Whether a name is of a host outside of the cluster, whose own Services istiod knows."""
    name, _, rest = host.partition(".")
    namespaces = {manifest.namespace for manifest in mesh.manifests}
    return bool(name and rest) and rest not in namespaces and not rest.endswith(_IN_CLUSTER)


def _limits_outbound(policy: Manifest, program: Program) -> bool:
    selector = mapping(policy.spec.get("podSelector"))
    labels = mapping(selector.get("matchLabels"))
    return (
        policy.namespace == program.manifest.namespace
        and "matchExpressions" not in selector
        and all(program.labels.get(key) == value for key, value in labels.items())
        and "Egress" in items(policy.spec.get("policyTypes"))
    )


def _lets_out(policy: Manifest, number: int) -> bool:
    """A rule with addresses counts as admitting, as files cannot resolve the host."""
    for rule in map(mapping, items(policy.spec.get("egress"))):
        ports = [mapping(port).get("port") for port in items(rule.get("ports"))]
        targets = [mapping(target) for target in items(rule.get("to"))]
        is_outward = not targets or any("ipBlock" in target for target in targets)
        if is_outward and (not ports or number in ports):
            return True
    return False
