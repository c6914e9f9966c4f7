"""Are ext_authz and usage records configured by extension providers that exist and fail closed?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headgate.core.durations import go_seconds
from headgate.istio_check.attachments import our_attachments
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh, speaks_grpc
from headgate.policy.problems import hint

AUTHZ_KINDS = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")
LOG_KIND = "envoyHttpAls"
LONGEST_TIMEOUT_S = 30
BUILT_IN = ("prometheus", "envoy", "stackdriver", "otel")
"""Providers that istiod brings."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """A field of an object that names a provider."""

    manifest: Manifest
    path: KeyPath
    name: str
    is_authz: bool


def providers_named(mesh: Mesh) -> Iterator[Finding]:
    """The mesh configuration has every provider that an object names."""
    if mesh.config is None:
        return
    known = {text(provider.get("name")): provider for _, provider in mesh.providers()}
    for reference in _references(mesh):
        name, is_authz = reference.name, reference.is_authz
        provider = known.get(name)
        if provider is None:
            if name in BUILT_IN and not is_authz:
                continue
            rule = MeshRule.PROVIDER_UNKNOWN
            message = f"the mesh configuration has no provider {name}" + hint(name, known)
            remedy = f"one of: {', '.join(known) or 'there is none'}"
        elif is_authz and not any(kind in provider for kind in AUTHZ_KINDS):
            rule = MeshRule.PROVIDER_KIND
            kinds = " or ".join(AUTHZ_KINDS)
            message = f"the provider {name} is not an {kinds}: istiod refuses every request"
            remedy = "a provider for ext_authz"
        else:
            continue
        yield finding_at(rule, reference.manifest, reference.path, message, remedy)


def providers_themselves(mesh: Mesh) -> Iterator[Finding]:
    """Service, timeout and failure mode of the providers that are used."""
    if mesh.config is None:
        return
    used = {reference.name for reference in _references(mesh)}
    for path, provider in mesh.providers():
        for kind in (*AUTHZ_KINDS, LOG_KIND):
            if kind in provider and text(provider.get("name")) in used:
                settings = mapping(provider.get(kind))
                yield from _service(mesh, mesh.config, (*path, kind), settings)
                if kind in AUTHZ_KINDS:
                    yield from _authz(mesh.config, (*path, kind), settings)


def authorization(mesh: Mesh) -> Iterator[Finding]:
    """A workload has one provider, and calls it for every request."""
    for attached in our_attachments(mesh):
        policies = attached.custom_policies(mesh)
        names = {text(mapping(policy.spec.get("provider")).get("name")) for policy in policies}
        if len(names) > 1:
            shown = ", ".join(sorted(names))
            message = (
                f"the same pods have several providers ({shown}): istiod refuses every request"
            )
            path: KeyPath = ("spec", "provider", "name")
            yield finding_at(
                MeshRule.PROVIDERS_SEVERAL, policies[-1], path, message, "one provider"
            )
        if policies and not any(_takes_everything(policy) for policy in policies):
            message = "requests that no rule matches are not identified, and get 503"
            path = ("spec", "rules")
            yield finding_at(
                MeshRule.AUTHORIZATION_PARTIAL, policies[0], path, message, "rules: [{}]"
            )


def usage_records(mesh: Mesh) -> Iterator[Finding]:
    """Workloads that decide requests send their access log to Headgate."""
    kinds = {text(provider.get("name")): set(provider) for _, provider in mesh.providers()}
    for attached in our_attachments(mesh):
        names = [
            name
            for telemetry in mesh.kind("Telemetry")
            if attached.is_chosen_by(telemetry)
            for name in _loggers(telemetry)
        ]
        if not names or (mesh.config is not None and not _has_log(names, kinds)):
            first = attached.patches[0].manifest
            message = (
                "no Telemetry sends these pods' access log to Headgate: there are no usage records"
            )
            remedy = "a Telemetry as istio/components/gateway/telemetry-records.yaml"
            yield finding_at(MeshRule.NO_USAGE_RECORDS, first, (), message, remedy)


def _references(mesh: Mesh) -> Iterator[_Reference]:
    for policy in mesh.kind("AuthorizationPolicy"):
        if policy.spec.get("action") == "CUSTOM":
            name = text(mapping(policy.spec.get("provider")).get("name"))
            yield _Reference(policy, ("spec", "provider", "name"), name, is_authz=True)
    for telemetry in mesh.kind("Telemetry"):
        for key in ("accessLogging", "metrics", "tracing"):
            for at, entry in enumerate(items(telemetry.spec.get(key))):
                for number, provider in enumerate(items(mapping(entry).get("providers"))):
                    path: KeyPath = ("spec", key, at, "providers", number, "name")
                    name = text(mapping(provider).get("name"))
                    yield _Reference(telemetry, path, name, is_authz=False)


def _loggers(telemetry: Manifest) -> Iterator[str]:
    for entry in map(mapping, items(telemetry.spec.get("accessLogging"))):
        if entry.get("disabled") is not True:
            for provider in items(entry.get("providers")):
                yield text(mapping(provider).get("name"))


def _has_log(names: list[str], kinds: Mapping[str, set[str]]) -> bool:
    return any(name not in kinds or LOG_KIND in kinds[name] for name in names)


def _service(
    mesh: Mesh, config: Manifest, path: KeyPath, settings: Mapping[str, object]
) -> Iterator[Finding]:
    """Checks the service of a provider; `path` ends with the provider's kind."""
    host = text(settings.get("service")).rpartition("/")[2]
    number = whole(settings.get("port"))
    service = mesh.services.get(host)
    if service is None:
        message = f"there is no service {host}: istiod refuses every request"
        message += hint(host, mesh.services)
        remedy = "the host of a Service"
        yield finding_at(MeshRule.PROVIDER_SERVICE, config, (*path, "service"), message, remedy)
        return
    port = next((port for port in service.ports if port.number == number), None)
    if port is None:
        message = f"{host} has no port {settings.get('port')}"
        remedy = f"one of: {', '.join(str(port.number) for port in service.ports)}"
        yield finding_at(MeshRule.PROVIDER_SERVICE, config, (*path, "port"), message, remedy)
    elif path[-1] != "envoyExtAuthzHttp" and not speaks_grpc(port):
        message = (
            f"port {number} declares {port.shown}: istiod speaks HTTP/1.1 to it,"
            " so every call fails"
        )
        ports_path: KeyPath = ("spec", "ports")
        remedy = "name: grpc-hooks"
        yield finding_at(MeshRule.PORT_PROTOCOL, service.manifest, ports_path, message, remedy)


def _authz(config: Manifest, path: KeyPath, settings: Mapping[str, object]) -> Iterator[Finding]:
    timeout = go_seconds(settings.get("timeout"))
    if not timeout or timeout > LONGEST_TIMEOUT_S:
        given = text(settings.get("timeout")) or "600s (istiod's default)"
        message = f"a replica that hangs holds each request for {given}"
        where: KeyPath = (*path, "timeout")
        yield finding_at(MeshRule.PROVIDER_TIMEOUT, config, where, message, "timeout: 2s")
    if settings.get("failOpen", False) is not False:
        message = "requests pass without a key while the services do not answer"
        where = (*path, "failOpen")
        yield finding_at(MeshRule.PROVIDER_FAILS_OPEN, config, where, message, "failOpen: false")
    if str(settings.get("statusOnError", "")) != "503":
        given = str(settings.get("statusOnError", "403 (istiod's default)"))
        message = (
            f"clients get {given} while the services do not answer, as if their key were wrong"
        )
        where = (*path, "statusOnError")
        remedy = 'statusOnError: "503"'
        yield finding_at(MeshRule.PROVIDER_STATUS, config, where, message, remedy)


def _takes_everything(policy: Manifest) -> bool:
    return any(rule == {} for rule in items(policy.spec.get("rules")))
