"""Does every model of the policy have its route, and every route its model?"""

from collections.abc import Iterator

from headgate.core.contract import HEADER_PREFIX, VERSION_HEADER, Header
from headgate.istio_check.attachments import EXT_PROC, our_places
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, mapping
from headgate.istio_check.mesh import Mesh, Service, is_selected, upstream_address
from headgate.istio_check.routing import Route, routes
from headgate.policy.problems import hint


def attachment(mesh: Mesh) -> Iterator[Finding]:
    """Without ext_proc nobody says which model a request is for, and nobody counts it."""
    places = our_places(mesh)
    if not any(patch.name == EXT_PROC for place in places for patch in place.patches):
        what = f"no EnvoyFilter brings {EXT_PROC}: no request is identified, limited or metered"
        write = "a component that attaches the request path, as istio/components/gateway"
        yield found(Rule.NOTHING_ATTACHED, mesh.policy.document, ("models",), what, write)


def models_and_routes(mesh: Mesh) -> Iterator[Finding]:
    """By the header that ext_proc writes for the base model, both ways."""
    by_model: dict[str, list[Route]] = {}
    for route in routes(mesh):
        for model, path in route.models.items():
            by_model.setdefault(model, []).append(route)
            if model not in mesh.policy.bases:
                what = f"the policy has no base model {model}" + hint(model, mesh.policy.bases)
                write = "a base model of the policy, or take the route out"
                yield found(Rule.ROUTE_WITHOUT_MODEL, route.manifest, path, what, write)
    for model, upstream in mesh.policy.bases.items():
        of_model = by_model.get(model, [])
        if not of_model and _routes_by_header(mesh):
            what = f"no route takes its requests: none matches {Header.BASE} exactly {model}"
            write = (
                f"a VirtualService with a match {{headers: {{{Header.BASE}: {{exact: {model}}}}}}}"
            )
            place: KeyPath = ("models", model)
            yield found(Rule.MODEL_WITHOUT_ROUTE, mesh.policy.document, place, what, write)
        yield from _upstream(mesh, upstream, of_model)


def versions(mesh: Mesh) -> Iterator[Finding]:
    """Each version of the policy has a route, and a subset of the same name."""
    for model, names in mesh.policy.versions.items() if _routes_by_header(mesh) else ():
        of_model = [one for one in routes(mesh) if model in one.models]
        for name in names:
            path: KeyPath = ("models", model, "versions", name)
            mine = [one for one in of_model if name in one.versions]
            if not mine:
                what = f"no route takes it: none matches {Header.VERSION} exactly {name}"
                write = f"a route before the split with {Header.VERSION}: {{exact: {name}}}"
                yield found(Rule.VERSION_WITHOUT_ROUTE, mesh.policy.document, path, what, write)
            for one in (destination for route in mine for destination in route.destinations):
                if one.subset and one.subset != name and one.subset in names:
                    what = f"the route of version {name} goes to the subset {one.subset}"
                    write = f"subset: {name}"
                    yield found(
                        Rule.VERSION_WITHOUT_SUBSET, mine[0].manifest, one.path, what, write
                    )


def headers(mesh: Mesh) -> Iterator[Finding]:
    """Headers that routes match are headers that ext_proc writes."""
    known = [str(one) for one in Header]
    for route in routes(mesh):
        for path, name in route.headers:
            if name == VERSION_HEADER:
                what = f"{name} is the client's own word, and ext_proc removes it before routing"
                write = f"{Header.VERSION}, which ext_proc writes for tenants that may choose"
                yield found(Rule.HEADER_OF_CLIENT, route.manifest, path, what, write)
            elif name.startswith(HEADER_PREFIX) and name not in known:
                what = f"ext_proc writes no header {name}" + hint(name, known)
                yield found(Rule.HEADER_UNKNOWN, route.manifest, path, what, ", ".join(known))


def catch_all(mesh: Mesh) -> Iterator[Finding]:
    """Until ext_proc has named the model every request needs a route: without one Envoy asks no
    hook."""
    if not _routes_by_header(mesh) or any(frozenset() in one.matches for one in routes(mesh)):
        return
    what = "no route takes a request before its model is known: ext_authz is never asked for it"
    write = "a route without a match for hosts ['*'], as istio/components/gateway/no-route.yaml"
    place = next(iter(mesh.kind("Gateway")), mesh.policy.document)
    yield found(Rule.NO_CATCH_ALL, place, (), what, write)


def policy_in_the_mesh(mesh: Mesh) -> Iterator[Finding]:
    """The ConfigMap that the services mount holds the policy that was checked."""
    for one in mesh.kind("ConfigMap"):
        data = mapping(one.value.get("data"))
        if one.name == "headgate-policy" and data and mesh.policy.source not in data.values():
            key = next(iter(data))
            what = "this is not the policy that was checked with it"
            write = f"the content of {mesh.policy.document.file.name}, or check this one"
            yield found(Rule.POLICY_DIFFERS, one, ("data", key), what, write)


def _routes_by_header(mesh: Mesh) -> bool:
    """A sidecar of a model server decides after routing: its requests have come by then."""
    places = our_places(mesh)
    return not places or any("GATEWAY" in place.contexts for place in places)


def _upstream(mesh: Mesh, upstream: str, of_model: list[Route]) -> Iterator[Finding]:
    """The route goes to the pods of the policy's upstream, or to a part of them."""
    host, port = upstream_address(upstream)
    service = mesh.services.get(host)
    destinations = [
        (route, one) for route in of_model for one in route.destinations if not one.is_mirror
    ]
    for _, one in destinations:
        other = mesh.services.get(one.host)
        is_part = service is not None and other is not None and _is_part(other, service)
        if (one.host == host or is_part) and one.port in (port, None):
            return
    if destinations:
        route, first = destinations[0]
        there = f"{first.host}:{first.port or port}"
        what = f"the route goes to {there}, the policy says {host}:{port}"
        write = f"http://{there} in the policy, or the policy's host here"
        yield found(Rule.UPSTREAM_DIFFERS, route.manifest, first.path, what, write)


def _is_part(one: Service, whole: Service) -> bool:
    return (
        bool(whole.selector)
        and one.manifest.namespace == whole.manifest.namespace
        and is_selected(whole.selector, one.selector)
    )
