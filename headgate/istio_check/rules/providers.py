"""Do ext_authz and the usage records come by extension providers that exist and fail closed?"""

from collections.abc import Iterator, Mapping

from headgate.istio_check.attachments import our_places
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh, speaks_grpc
from headgate.istio_check.rules.routes import seconds
from headgate.policy.problems import hint

AUTHZ_KINDS = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")
LOG_KIND = "envoyHttpAls"
LONGEST_TIMEOUT_S = 30
BUILT_IN = ("prometheus", "envoy", "stackdriver", "otel")
"""Providers that istiod brings."""


def providers_named(mesh: Mesh) -> Iterator[Finding]:
    """Whoever names a provider finds it in the mesh configuration."""
    if mesh.config is None:
        return
    known = {text(one.get("name")): one for _, one in mesh.providers()}
    for one, path, name, kinds in _named(mesh):
        provider = known.get(name)
        if provider is None:
            if name not in BUILT_IN or kinds == AUTHZ_KINDS:
                what = f"the mesh configuration has no provider {name}" + hint(name, known)
                write = f"one of: {', '.join(known) or 'none is there'}"
                yield found(Rule.PROVIDER_UNKNOWN, one, path, what, write)
        elif kinds == AUTHZ_KINDS and not any(kind in provider for kind in kinds):
            what = f"the provider {name} is no {' or '.join(kinds)}: istiod refuses every request"
            yield found(Rule.PROVIDER_KIND, one, path, what, "a provider for ext_authz")


def providers_themselves(mesh: Mesh) -> Iterator[Finding]:
    """Service, timeout and failure mode of the providers that are used."""
    if mesh.config is None:
        return
    used = {name for _, _, name, _ in _named(mesh)}
    for path, provider in mesh.providers():
        for kind in (*AUTHZ_KINDS, LOG_KIND):
            if kind in provider and text(provider.get("name")) in used:
                own = mapping(provider.get(kind))
                yield from _service(mesh, mesh.config, (*path, kind), own, kind)
                if kind in AUTHZ_KINDS:
                    yield from _authz(mesh.config, (*path, kind), own)


def authorization(mesh: Mesh) -> Iterator[Finding]:
    """One provider for a workload, and for every request."""
    for place in our_places(mesh):
        policies = place.custom_policies(mesh)
        names = {text(mapping(one.spec.get("provider")).get("name")) for one in policies}
        if len(names) > 1:
            several = ", ".join(sorted(names))
            what = f"several providers for the same pods ({several}): istiod refuses every request"
            path: KeyPath = ("spec", "provider", "name")
            yield found(Rule.PROVIDERS_SEVERAL, policies[-1], path, what, "one provider")
        if policies and not any(_takes_everything(one) for one in policies):
            what = "requests that no rule takes are not identified, and get 503"
            write = "rules: [{}]"
            yield found(Rule.AUTHORIZATION_PARTIAL, policies[0], ("spec", "rules"), what, write)


def usage_records(mesh: Mesh) -> Iterator[Finding]:
    """Wherever requests are decided their access log goes to us."""
    kinds = {text(one.get("name")): set(one) for _, one in mesh.providers()}
    for place in our_places(mesh):
        names = [
            name for one in mesh.kind("Telemetry") if place.takes(one) for name in _loggers(one)
        ]
        if not names or (mesh.config is not None and not _has_log(names, kinds)):
            first = place.patches[0].manifest
            what = (
                "no Telemetry sends these pods' access log to Headgate: there are no usage records"
            )
            write = "a Telemetry as istio/components/gateway/telemetry-records.yaml"
            yield found(Rule.NO_USAGE_RECORDS, first, (), what, write)


def _named(mesh: Mesh) -> Iterator[tuple[Manifest, KeyPath, str, tuple[str, ...]]]:
    """Each place where a provider is named: the object, the path, the name and its kinds."""
    for one in mesh.kind("AuthorizationPolicy"):
        if one.spec.get("action") == "CUSTOM":
            name = text(mapping(one.spec.get("provider")).get("name"))
            yield one, ("spec", "provider", "name"), name, AUTHZ_KINDS
    for one in mesh.kind("Telemetry"):
        for key in ("accessLogging", "metrics", "tracing"):
            for at, entry in enumerate(items(one.spec.get(key))):
                for number, provider in enumerate(items(mapping(entry).get("providers"))):
                    path: KeyPath = ("spec", key, at, "providers", number, "name")
                    yield one, path, text(mapping(provider).get("name")), ()


def _loggers(one: Manifest) -> Iterator[str]:
    for entry in map(mapping, items(one.spec.get("accessLogging"))):
        if entry.get("disabled") is not True:
            for provider in items(entry.get("providers")):
                yield text(mapping(provider).get("name"))


def _has_log(names: list[str], kinds: Mapping[str, set[str]]) -> bool:
    return any(name not in kinds or LOG_KIND in kinds[name] for name in names)


def _service(
    mesh: Mesh, config: Manifest, path: KeyPath, own: Mapping[str, object], kind: str
) -> Iterator[Finding]:
    host = text(own.get("service")).rpartition("/")[2]
    number = whole(own.get("port"))
    service = mesh.services.get(host)
    if service is None:
        what = f"there is no service {host}: istiod refuses every request" + hint(
            host, mesh.services
        )
        yield found(
            Rule.PROVIDER_SERVICE, config, (*path, "service"), what, "the host of a Service"
        )
        return
    port = next((one for one in service.ports if one.number == number), None)
    if port is None:
        numbers = ", ".join(str(one.number) for one in service.ports)
        what = f"{host} has no port {own.get('port')}"
        yield found(Rule.PROVIDER_SERVICE, config, (*path, "port"), what, f"one of: {numbers}")
    elif kind != "envoyExtAuthzHttp" and not speaks_grpc(port):
        name = port.shown
        what = f"port {number} is called {name}: istiod speaks HTTP/1.1 to it, and every call fails"
        yield found(
            Rule.PORT_PROTOCOL, service.manifest, ("spec", "ports"), what, "name: grpc-hooks"
        )


def _authz(config: Manifest, path: KeyPath, own: Mapping[str, object]) -> Iterator[Finding]:
    timeout = seconds(own.get("timeout"))
    if not timeout or timeout > LONGEST_TIMEOUT_S:
        given = text(own.get("timeout")) or "600s (istiod's default)"
        what = f"a replica that hangs holds each request for {given}"
        yield found(Rule.PROVIDER_TIMEOUT, config, (*path, "timeout"), what, "timeout: 2s")
    if own.get("failOpen", False) is not False:
        what = "requests pass without a key while the services do not answer"
        yield found(Rule.PROVIDER_FAILS_OPEN, config, (*path, "failOpen"), what, "failOpen: false")
    if str(own.get("statusOnError", "")) != "503":
        given = str(own.get("statusOnError", "403 (istiod's default)"))
        what = f"clients get {given} while the services do not answer, and take their key for wrong"
        where: KeyPath = (*path, "statusOnError")
        yield found(Rule.PROVIDER_STATUS, config, where, what, 'statusOnError: "503"')


def _takes_everything(one: Manifest) -> bool:
    return any(rule == {} for rule in items(one.spec.get("rules")))
