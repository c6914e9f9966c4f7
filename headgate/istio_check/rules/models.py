"""Does every model of the policy have its route, and every route its model?"""

from collections.abc import Iterator

from headgate.core.contract import HEADER_PREFIX, VERSION_HEADER, Header
from headgate.istio_check.attachments import EXT_PROC, SLOT_SETTLER, our_attachments, our_gateways
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, mapping
from headgate.istio_check.mesh import Mesh, Service, is_selected, upstream_address
from headgate.istio_check.routing import Route, gateways_of, routes
from headgate.policy.problems import hint


def attachment(mesh: Mesh) -> Iterator[Finding]:
    """ext_proc finds the model of each request and has it metered."""
    patches = (patch for attached in our_attachments(mesh) for patch in attached.patches)
    if not any(patch.name in (EXT_PROC, SLOT_SETTLER) for patch in patches):
        message = f"no EnvoyFilter adds {EXT_PROC}: no request is identified, limited or metered"
        remedy = "a component that attaches the request path, as istio/components/gateway"
        document = mesh.policy.document
        yield finding_at(MeshRule.NOTHING_ATTACHED, document, ("models",), message, remedy)


def models_and_routes(mesh: Mesh) -> Iterator[Finding]:
    """Each base model has a route by the header that ext_proc writes for it, and vice versa."""
    by_model: dict[str, list[Route]] = {}
    for route in routes(mesh):
        for model, path in route.models.items():
            by_model.setdefault(model, []).append(route)
            if model not in mesh.policy.bases:
                message = f"the policy has no base model {model}" + hint(model, mesh.policy.bases)
                remedy = "a base model of the policy, or remove the route"
                yield finding_at(
                    MeshRule.ROUTE_WITHOUT_MODEL, route.manifest, path, message, remedy
                )
    for model, upstream in mesh.policy.bases.items():
        of_model = by_model.get(model, [])
        if not of_model and _routes_by_header(mesh):
            yield _without_route(mesh, model)
        yield from _upstream(mesh, upstream, of_model)


def _without_route(mesh: Mesh, model: str) -> Finding:
    message = f"no route takes its requests: none matches {Header.BASE} exactly {model}"
    remedy = f"a VirtualService with a match {{headers: {{{Header.BASE}: {{exact: {model}}}}}}}"
    path: KeyPath = ("models", model)
    return finding_at(MeshRule.MODEL_WITHOUT_ROUTE, mesh.policy.document, path, message, remedy)


def versions(mesh: Mesh) -> Iterator[Finding]:
    """Each version of the policy has a route, and a subset of the same name."""
    for model, names in mesh.policy.versions.items() if _routes_by_header(mesh) else ():
        of_model = [route for route in routes(mesh) if model in route.models]
        for name in names:
            of_version = [route for route in of_model if name in route.versions]
            if not of_version:
                path: KeyPath = ("models", model, "versions", name)
                message = f"no route takes it: none matches {Header.VERSION} exactly {name}"
                remedy = f"a route before the split with {Header.VERSION}: {{exact: {name}}}"
                document = mesh.policy.document
                yield finding_at(MeshRule.VERSION_WITHOUT_ROUTE, document, path, message, remedy)
            for route in of_version:
                yield from _subset_of_version(route, name, frozenset(names) - {name})


def _subset_of_version(route: Route, version: str, others: frozenset[str]) -> Iterator[Finding]:
    for destination in route.destinations:
        if destination.subset in others:
            message = f"the route of version {version} goes to the subset {destination.subset}"
            path, remedy = destination.path, f"subset: {version}"
            yield finding_at(MeshRule.VERSION_WITHOUT_SUBSET, route.manifest, path, message, remedy)


def headers(mesh: Mesh) -> Iterator[Finding]:
    """ext_proc writes the headers that routes match."""
    known = [str(header) for header in Header]
    for route in routes(mesh):
        for path, name in route.headers:
            if name == VERSION_HEADER:
                message = f"{name} comes from the client, and ext_proc removes it before routing"
                remedy = f"{Header.VERSION}, which ext_proc writes for tenants that may choose"
                yield finding_at(MeshRule.HEADER_OF_CLIENT, route.manifest, path, message, remedy)
            elif name.startswith(HEADER_PREFIX) and name not in known:
                message = f"ext_proc writes no header {name}" + hint(name, known)
                remedy = ", ".join(known)
                yield finding_at(MeshRule.HEADER_UNKNOWN, route.manifest, path, message, remedy)


def catch_all(mesh: Mesh) -> Iterator[Finding]:
    """Some route takes a request before ext_proc has named its model.

    Envoy calls no hook for a request without a route.
    """
    gateways = our_gateways(mesh)
    names = {f"{gateway.namespace}/{gateway.name}" for gateway in gateways}
    taken = (
        route
        for route in routes(mesh)
        if frozenset() in route.matches and (not names or names & set(gateways_of(route.manifest)))
    )
    if not _routes_by_header(mesh) or any(True for _ in taken):
        return
    message = (
        "no route takes a request before its model is known, so Envoy never calls ext_authz for it"
    )
    remedy = "a route without a match for hosts ['*'], as istio/components/gateway/no-route.yaml"
    manifest = gateways[0] if gateways else mesh.policy.document
    yield finding_at(MeshRule.NO_CATCH_ALL, manifest, (), message, remedy)


def policy_in_the_mesh(mesh: Mesh) -> Iterator[Finding]:
    """The ConfigMap that the services mount holds the policy that is checked."""
    for manifest in mesh.kind("ConfigMap"):
        data = mapping(manifest.value.get("data"))
        is_policy = manifest.name == "headgate-policy"
        if is_policy and data and mesh.policy.source not in data.values():
            path: KeyPath = ("data", next(iter(data)))
            message = "this policy differs from the policy file that is checked"
            remedy = f"the content of {mesh.policy.document.file.name}, or check this policy"
            yield finding_at(MeshRule.POLICY_DIFFERS, manifest, path, message, remedy)


def _routes_by_header(mesh: Mesh) -> bool:
    """A model server's sidecar decides after routing, so routes cannot use ext_proc's headers."""
    attached = our_attachments(mesh)
    return not attached or any("GATEWAY" in each.contexts for each in attached)


def _upstream(mesh: Mesh, upstream: str, of_model: list[Route]) -> Iterator[Finding]:
    """A route goes to the pods of the policy's upstream, or to some of them."""
    host, port = upstream_address(upstream)
    service = mesh.services.get(host)
    destinations = [
        (route, destination)
        for route in of_model
        for destination in route.destinations
        if not destination.is_mirror
    ]
    for _, destination in destinations:
        other = mesh.services.get(destination.host)
        is_part = service is not None and other is not None and _is_part(other, service)
        if (destination.host == host or is_part) and destination.port in (port, None):
            return
    if destinations:
        route, first = destinations[0]
        actual = f"{first.host}:{first.port or port}"
        message = f"the route goes to {actual}, but the policy's upstream is {host}:{port}"
        remedy = f"http://{actual} in the policy, or the policy's host here"
        yield finding_at(MeshRule.UPSTREAM_DIFFERS, route.manifest, first.path, message, remedy)


def _is_part(service: Service, whole: Service) -> bool:
    return (
        bool(whole.selector)
        and service.manifest.namespace == whole.manifest.namespace
        and is_selected(whole.selector, service.selector)
    )
