"""Are the weights, precedence, gateways, retries and timeouts of routes right?"""

from collections.abc import Iterator

from headgate.core.durations import go_seconds
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh
from headgate.istio_check.routing import Route, routes

SAFE_RETRIES = frozenset({"connect-failure", "refused-stream", "reset-before-request"})
"""Failures before vLLM can have begun. A retry after any other may run a generation twice."""
SHORTEST_ROUTE_S = 600
"""A stream of a large model may last this long."""
_RETRIES = "retries: {attempts: 2, retryOn: connect-failure,refused-stream,reset-before-request}"


def weights(mesh: Mesh) -> Iterator[Finding]:
    """The weights of a split are percentages, as Flagger, Argo Rollouts and people read them."""
    for route in routes(mesh):
        if route.manifest.kind != "VirtualService":
            continue
        split = [each.weight for each in route.destinations if not each.is_mirror]
        given = [whole(weight) for weight in split if weight is not None]
        if len(split) < 2 and not given:
            continue
        total = sum(weight for weight in given if weight is not None)
        has_wrong = any(weight is None or weight < 0 for weight in given)
        if total != 100 or len(given) < len(split) or has_wrong:
            shown = ", ".join("none" if weight is None else str(weight) for weight in split)
            message = f"the weights are {shown}, with a sum of {total}"
            path: KeyPath = (*route.path, "route")
            remedy = "whole weights that sum to 100"
            yield finding_at(MeshRule.WEIGHTS, route.manifest, path, message, remedy)


def precedence(mesh: Mesh) -> Iterator[Finding]:
    """The first matching route wins, so a route with fewer conditions comes later."""
    earlier: list[Route] = []
    for route in routes(mesh):
        if route.manifest.kind != "VirtualService":
            continue
        if earlier and earlier[-1].manifest is not route.manifest:
            earlier = []
        shadow = next((each for each in earlier if _takes_all_of(each, route)), None)
        if shadow is not None:
            name = text(shadow.body.get("name")) or f"http[{shadow.path[-1]}]"
            message = f"no request reaches it: {name} above takes them all"
            remedy = f"this route before {name}: routes with more conditions come first"
            rule, manifest = MeshRule.ROUTE_NEVER_REACHED, route.manifest
            yield finding_at(rule, manifest, route.path, message, remedy)
        earlier.append(route)


def gateways(mesh: Mesh) -> Iterator[Finding]:
    """Every gateway that a route names exists."""
    istio = {f"{each.namespace}/{each.name}" for each in mesh.kind("Gateway", "istio.io")}
    kubernetes = {f"{each.namespace}/{each.name}" for each in mesh.kind("Gateway", "k8s.io")}
    for service in mesh.kind("VirtualService"):
        for at, name in enumerate(map(text, items(service.spec.get("gateways")))):
            gateway = name if "/" in name else f"{service.namespace}/{name}"
            if name != "mesh" and gateway not in istio:
                yield _no_gateway(service, ("spec", "gateways", at), gateway, istio)
    for route in mesh.kind("HTTPRoute"):
        for at, parent in enumerate(map(mapping, items(route.spec.get("parentRefs")))):
            namespace = text(parent.get("namespace")) or route.namespace
            gateway = f"{namespace}/{text(parent.get('name'))}"
            if text(parent.get("kind")) in ("", "Gateway") and gateway not in kubernetes:
                yield _no_gateway(route, ("spec", "parentRefs", at), gateway, kubernetes)


def _no_gateway(manifest: Manifest, path: KeyPath, gateway: str, known: set[str]) -> Finding:
    message = f"there is no Gateway {gateway}, so no listener has the routes"
    remedy = f"one of: {', '.join(sorted(known)) or 'there is none'}"
    return finding_at(MeshRule.GATEWAY_UNKNOWN, manifest, path, message, remedy)


def retries(mesh: Mesh) -> Iterator[Finding]:
    """No retry runs a generation again that has started."""
    default = mapping(mesh.config.value.get("defaultHttpRetryPolicy")) if mesh.config else {}
    for route in _model_routes(mesh):
        if route.manifest.kind == "HTTPRoute":
            yield from _retried_codes(route)
            continue
        policy = mapping(route.body.get("retries")) or default
        path: KeyPath = (*route.path, "retries")
        retry_on = text(policy.get("retryOn"))
        if policy.get("attempts") == 0:
            continue
        if not retry_on:
            message = "Istio's default retries apply, and not all of them suit model servers"
            yield finding_at(MeshRule.RETRIES_DEFAULT, route.manifest, path, message, _RETRIES)
        unsafe = [word for word in retry_on.replace(" ", "").split(",") if word not in SAFE_RETRIES]
        if retry_on and unsafe:
            message = f"{', '.join(unsafe)} repeats a generation that may have started"
            path = (*path, "retryOn")
            yield finding_at(MeshRule.RETRIES_REPEAT, route.manifest, path, message, _RETRIES)


def timeouts(mesh: Mesh) -> Iterator[Finding]:
    """Streams last minutes."""
    for route in _model_routes(mesh):
        of_retries = mapping(route.body.get("retries"))
        of_route = mapping(route.body.get("timeouts"))
        for below, value in (
            (("timeout",), route.body.get("timeout")),
            (("retries", "perTryTimeout"), of_retries.get("perTryTimeout")),
            (("timeouts", "request"), of_route.get("request")),
            (("timeouts", "backendRequest"), of_route.get("backendRequest")),
        ):
            limit = go_seconds(value)
            if limit and limit < SHORTEST_ROUTE_S:
                message = f"{text(value)} cuts streams: the timeout runs to the end of the answer"
                remedy = "no timeout here; a time limit belongs in the client or in vLLM"
                path: KeyPath = (*route.path, *below)
                yield finding_at(MeshRule.ROUTE_TIMEOUT, route.manifest, path, message, remedy)


def hosts_outside(mesh: Mesh) -> Iterator[Finding]:
    """A host outside of the mesh, such as another region's gateway, gets its own name as Host."""
    for route in _model_routes(mesh):
        outside = [
            each.host
            for each in route.destinations
            if (service := mesh.services.get(each.host)) is not None and service.is_outside
        ]
        rewrites = "authority" in mapping(route.body.get("rewrite"))
        if outside and not rewrites and route.manifest.kind == "VirtualService":
            message = f"{outside[0]} gets the Host that the client has called, and may not know it"
            remedy = f"rewrite: {{authority: {outside[0]}}}"
            yield finding_at(MeshRule.HOST_OF_CLIENT, route.manifest, route.path, message, remedy)


def dropped_filters(mesh: Mesh) -> Iterator[Finding]:
    """A route of a model has no field that makes istiod drop its per-route filter settings."""
    for route in _model_routes(mesh):
        for key in ("fault", "corsPolicy"):
            if key in route.body:
                message = f"{key} drops the filter settings of this route (an InferencePool's)"
                remedy = f"no {key} on the route of a model"
                path: KeyPath = (*route.path, key)
                rule = MeshRule.ROUTE_DROPS_FILTERS
                yield finding_at(rule, route.manifest, path, message, remedy)


def _model_routes(mesh: Mesh) -> list[Route]:
    return [route for route in routes(mesh) if route.models]


def _takes_all_of(first: Route, second: Route) -> bool:
    return all(any(fewer <= more for fewer in first.matches) for more in second.matches)


def _retried_codes(route: Route) -> Iterator[Finding]:
    """An HTTPRoute names only the statuses that are retried."""
    codes = ", ".join(str(code) for code in items(mapping(route.body.get("retry")).get("codes")))
    if codes:
        message = f"an answer with {codes} may come from a generation that has started"
        path: KeyPath = (*route.path, "retry", "codes")
        yield finding_at(MeshRule.RETRIES_REPEAT, route.manifest, path, message, "no codes")
