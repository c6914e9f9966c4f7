"""Are routes in order: weights, precedence, gateways, retries, timeouts?"""

import re
from collections.abc import Iterator

from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, items, mapping, text, whole
from headgate.istio_check.mesh import Mesh
from headgate.istio_check.routing import Route, routes

SAFE_RETRIES = frozenset({"connect-failure", "refused-stream", "reset-before-request"})
"""What vLLM cannot have begun. Others run a generation twice."""
SHORTEST_ROUTE_S = 600
"""A stream of a large model may last so long."""
_RETRIES = "retries: {attempts: 2, retryOn: connect-failure,refused-stream,reset-before-request}"
_BY_DEFAULT = "Istio's default retries apply, of which not all are for model servers"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def weights(mesh: Mesh) -> Iterator[Finding]:
    """The weights of a split are hundredths: Flagger, Argo Rollouts and people read them so."""
    for route in routes(mesh):
        if route.manifest.kind != "VirtualService":
            continue
        split = [one for one in route.destinations if not one.is_mirror]
        given = [whole(one.weight) for one in split if one.weight is not None]
        if len(split) < 2 and not given:
            continue
        total = sum(one for one in given if one is not None)
        if total != 100 or len(given) < len(split) or any(one is None or one < 0 for one in given):
            shown = ", ".join("none" if one.weight is None else str(one.weight) for one in split)
            what = f"the weights are {shown}: together {total}"
            path: KeyPath = (*route.path, "route")
            yield found(Rule.WEIGHTS, route.manifest, path, what, "whole weights that sum to 100")


def precedence(mesh: Mesh) -> Iterator[Finding]:
    """The first route that matches wins: one that asks for less must not stand before."""
    before: list[Route] = []
    for route in routes(mesh):
        if route.manifest.kind != "VirtualService":
            continue
        if before and before[-1].manifest is not route.manifest:
            before = []
        shadow = next((one for one in before if _takes_all_of(one, route)), None)
        if shadow is not None:
            name = text(shadow.body.get("name")) or f"http[{shadow.path[-1]}]"
            what = f"it is never reached: {name} above takes all of its requests"
            write = f"this route before {name}: those with more conditions first"
            yield found(Rule.ROUTE_NEVER_REACHED, route.manifest, route.path, what, write)
        before.append(route)


def gateways(mesh: Mesh) -> Iterator[Finding]:
    """Each gateway that a route names is there."""
    istio = {f"{one.namespace}/{one.name}" for one in mesh.kind("Gateway", "istio.io")}
    kubernetes = {f"{one.namespace}/{one.name}" for one in mesh.kind("Gateway", "k8s.io")}
    for one in mesh.kind("VirtualService"):
        for at, name in enumerate(items(one.spec.get("gateways"))):
            full = text(name) if "/" in text(name) else f"{one.namespace}/{text(name)}"
            if text(name) != "mesh" and full not in istio:
                write = f"one of: {', '.join(sorted(istio)) or 'none is there'}"
                what = f"there is no Gateway {full}: the routes are on no listener"
                yield found(Rule.GATEWAY_UNKNOWN, one, ("spec", "gateways", at), what, write)
    for one in mesh.kind("HTTPRoute"):
        for at, parent in enumerate(map(mapping, items(one.spec.get("parentRefs")))):
            full = f"{text(parent.get('namespace')) or one.namespace}/{text(parent.get('name'))}"
            if text(parent.get("kind")) in ("", "Gateway") and full not in kubernetes:
                write = f"one of: {', '.join(sorted(kubernetes)) or 'none is there'}"
                what = f"there is no Gateway {full}: the routes are on no listener"
                yield found(Rule.GATEWAY_UNKNOWN, one, ("spec", "parentRefs", at), what, write)


def retries(mesh: Mesh) -> Iterator[Finding]:
    """A generation that has started is never run again."""
    default = mapping(mesh.config.value.get("defaultHttpRetryPolicy")) if mesh.config else {}
    for route in _model_routes(mesh):
        if route.manifest.kind == "HTTPRoute":
            yield from _retried_codes(route)
            continue
        given = mapping(route.body.get("retries"))
        path: KeyPath = (*route.path, "retries")
        policy = given or default
        retry_on = text(policy.get("retryOn"))
        if policy.get("attempts") == 0:
            continue
        if not retry_on:
            yield found(Rule.RETRIES_DEFAULT, route.manifest, path, _BY_DEFAULT, _RETRIES)
        unsafe = [word for word in retry_on.replace(" ", "").split(",") if word not in SAFE_RETRIES]
        if retry_on and unsafe:
            what = f"{', '.join(unsafe)} repeats a generation that may have started"
            yield found(Rule.RETRIES_REPEAT, route.manifest, (*path, "retryOn"), what, _RETRIES)


def timeouts(mesh: Mesh) -> Iterator[Finding]:
    """Streams last minutes."""
    for route in _model_routes(mesh):
        of_retries = mapping(route.body.get("retries"))
        of_route = mapping(route.body.get("timeouts"))
        for path, value in (
            (("timeout",), route.body.get("timeout")),
            (("retries", "perTryTimeout"), of_retries.get("perTryTimeout")),
            (("timeouts", "request"), of_route.get("request")),
            (("timeouts", "backendRequest"), of_route.get("backendRequest")),
        ):
            limit = seconds(value)
            if limit and limit < SHORTEST_ROUTE_S:
                what = f"{text(value)} cuts streams: the time counts to the end of the answer"
                write = "no timeout here; a limit of time belongs into the client or vLLM"
                yield found(Rule.ROUTE_TIMEOUT, route.manifest, (*route.path, *path), what, write)


def dropped_filters(mesh: Mesh) -> Iterator[Finding]:
    """istiod writes these over what it has put there for filters of a route."""
    for route in _model_routes(mesh):
        for key in ("fault", "corsPolicy"):
            if key in route.body:
                what = f"{key} takes away what filters are told for this route (an InferencePool's)"
                write = f"no {key} on the route of a model"
                path: KeyPath = (*route.path, key)
                yield found(Rule.ROUTE_DROPS_FILTERS, route.manifest, path, what, write)


def seconds(value: object) -> float | None:
    """A duration as Istio and the Gateway API write it (`1m30s`). None for anything else."""
    parts = _DURATION.findall(text(value))
    if not parts or "".join(number + unit for number, unit in parts) != text(value):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _model_routes(mesh: Mesh) -> list[Route]:
    return [one for one in routes(mesh) if one.models]


def _takes_all_of(first: Route, second: Route) -> bool:
    return all(any(less <= more for less in first.matches) for more in second.matches)


def _retried_codes(route: Route) -> Iterator[Finding]:
    """An HTTPRoute cannot say more than which statuses are retried."""
    codes = ", ".join(str(one) for one in items(mapping(route.body.get("retry")).get("codes")))
    if codes:
        what = f"an answer with {codes} may be of a generation that has started"
        path: KeyPath = (*route.path, "retry", "codes")
        yield found(Rule.RETRIES_REPEAT, route.manifest, path, what, "no codes")
