"""The request path as Istio's EnvoyFilters, so that a mesh runs the filters of the one box.

istiod builds the listener, the routes, ext_authz (from an AuthorizationPolicy with the action
CUSTOM) and the access log (from a Telemetry). Patches add the rest, built by the same functions as
the one box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import betterproto2
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any

from headgate.core.contract import Counting, Namespace
from headgate.core.lean_contract import HookPath
from headgate.dataplane.affinity import READ_BEFORE, affinity_reader
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.chains import filter_chain
from headgate.dataplane.filters import router
from headgate.dataplane.listener import reading_rules
from headgate.dataplane.placement import HBONE, override_host, placer

SERVICES_HOST = "headgate.headgate.svc.cluster.local"
SERVICES_PORT = 9001
SERVICES_CLUSTER = f"outbound|{SERVICES_PORT}||{SERVICES_HOST}"
"""istiod's own cluster of the services. It has mTLS, endpoints and outlier detection. A cluster
added by an EnvoyFilter has none of them, and Envoy's default limit of 1,024 requests."""
ISTIO_VERSIONS = r"^1\.(29|30|31)\..*"
"""The versions whose Envoy has all features of the patches (`match.proxy.proxyVersion`, RE2)."""
MODEL_PORT = 8000
"""The port of a vLLM pod. A sidecar has listeners for the pod's other ports, too."""
WAYPOINT_LISTENER = "main_internal"
"""The listener of a waypoint that reads requests. The listener `connect_terminate` also has a
connection manager, which opens the tunnels of the requests. It must not be patched."""
WAYPOINT_CLUSTERS = "SIDECAR_OUTBOUND"
"""The side of a waypoint whose clusters can be patched: those of services that are not its own, and
of services that an EnvoyFilter references."""

Patch: TypeAlias = Mapping[str, object]
"""One entry of `configPatches`."""

_MANAGER = "envoy.filters.network.http_connection_manager"
_REFERENCED = "envoyfilter.istio.io/referenced-services"
"""Makes istiod send the services' cluster to gateways and waypoints that get only used clusters."""


class Attach(StrEnum):
    """The kind of proxy in a mesh to which the request path is attached."""

    GATEWAY = "gateway"
    SIDECAR = "sidecar"
    WAYPOINT = "waypoint"


@dataclass(frozen=True, slots=True)
class PatchTarget:
    """The proxies that are patched for one way to attach.

    Their namespace, their selector in an EnvoyFilter, istiod's `context` (the patched side of the
    proxy), and the match of their listeners.
    """

    namespace: str
    selector: Mapping[str, object]
    context: str
    listener: Mapping[str, object]


TARGETS = {
    Attach.GATEWAY: PatchTarget(
        "istio-ingress",
        {"workloadSelector": {"labels": {"istio": "ingressgateway"}}},
        "GATEWAY",
        {},
    ),
    Attach.SIDECAR: PatchTarget(
        "vllm",
        {"workloadSelector": {"labels": {"headgate.dev/serves": "vllm"}}},
        "SIDECAR_INBOUND",
        {"portNumber": MODEL_PORT},
    ),
    Attach.WAYPOINT: PatchTarget(
        "vllm",
        {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
            ]
        },
        "SIDECAR_INBOUND",
        {"name": WAYPOINT_LISTENER},
    ),
}
"""A waypoint applies patches with the context SIDECAR_INBOUND, and honours only targetRefs."""


def envoy_filters(
    attach: Attach,
    counting: Counting = Counting.PROXY,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    path: HookPath = HookPath.STANDARD,
) -> list[dict[str, object]]:
    """The objects to apply, in istiod's order (`priority`)."""
    target = TARGETS[attach]
    chain = filter_chain(SERVICES_CLUSTER, body_limit_bytes, path, counting)
    return [
        _object("headgate-reading", target, 10, [_reading(target, body_limit_bytes, path)]),
        _object("headgate-ext-authz", target, 20, [_ext_authz(target, chain)]),
        _object("headgate-filters", target, 30, _filters(target, chain)),
    ]


def placement_filters(
    services: Sequence[tuple[str, int]],
    attach: Attach = Attach.GATEWAY,
    path: HookPath = HookPath.STANDARD,
    affinity_salt: str | None = None,
) -> list[dict[str, object]]:
    """The object that lets Headgate choose between the pods of these services (host and port).

    It goes with the objects of both paths, and comes after them. Only the affinity reader, which an
    `affinity_salt` adds, has another place on each `path`.
    """
    target = TARGETS[attach]
    at_router = _match(target, router().name)
    add = _patch("HTTP_FILTER", at_router, "INSERT_BEFORE", _snake(placer(HBONE)))
    balancer = {"load_balancing_policy": _snake(override_host())}
    side = WAYPOINT_CLUSTERS if attach is Attach.WAYPOINT else target.context
    clusters = [
        _patch("CLUSTER", _cluster_match(side, host, port), "MERGE", balancer)
        for host, port in services
    ]
    patches = [add, *clusters]
    if attach is Attach.WAYPOINT:
        patches += [_waypoint_route(target, host, port) for host, port in services]
    if affinity_salt is not None:
        reader = _snake(affinity_reader(affinity_salt))
        patches.append(
            _patch("HTTP_FILTER", _match(target, READ_BEFORE[path]), "INSERT_BEFORE", reader)
        )
    hosts = [host for host, _ in services] if attach is Attach.WAYPOINT else []
    return [_object("headgate-placement", target, 40, patches, hosts)]


def _cluster_match(side: str, host: str, port: int) -> dict[str, object]:
    """The clusters of a service: that of the whole service, and those of its subsets."""
    return {
        "context": side,
        "proxy": {"proxyVersion": ISTIO_VERSIONS},
        "cluster": {"service": host, "portNumber": port},
    }


def _waypoint_route(target: PatchTarget, host: str, port: int) -> Patch:
    """Leads a waypoint's requests for a service to the cluster that callers outside of it have.

    istiod lets no patch change the cluster that a waypoint has for a service of its own.
    """
    match = {
        "context": target.context,
        "proxy": {"proxyVersion": ISTIO_VERSIONS},
        "routeConfiguration": {"name": f"inbound-vip|{port}|http|{host}"},
    }
    value = {"route": {"cluster": f"outbound|{port}||{host}"}}
    return _patch("HTTP_ROUTE", match, "MERGE", value)


def _object(
    name: str,
    target: PatchTarget,
    priority: int,
    patches: list[Patch],
    hosts: Sequence[str] = (),
) -> dict[str, object]:
    """The EnvoyFilter, and the services whose clusters its patches use: ours, and `hosts`."""
    used = [f"headgate/{SERVICES_HOST}", *(f"{host.split('.')[1]}/{host}" for host in hosts)]
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "annotations": {_REFERENCED: ",".join(used)},
        },
        "spec": {"priority": priority, **target.selector, "configPatches": patches},
    }


def _reading(target: PatchTarget, body_limit_bytes: int, path: HookPath) -> Patch:
    """The rules for reading requests. A merge appends lists; istiod's own lists are empty here."""
    rules = Any.pack(reading_rules(body_limit_bytes, path))
    value = {"name": _MANAGER, "typed_config": _snake(rules)}
    return _patch("NETWORK_FILTER", _match(target), "MERGE", value)


def _ext_authz(target: PatchTarget, chain: list[HttpFilter]) -> Patch:
    """Merges the settings that an extension provider lacks into istiod's ext_authz filter."""
    value = _snake(chain[_place_of_ext_authz(chain)])
    return _patch("HTTP_FILTER", _match(target, Namespace.CALLER), "MERGE", value)


def _filters(target: PatchTarget, chain: list[HttpFilter]) -> list[Patch]:
    """Inserts each filter right before ext_authz, or else before the router.

    This keeps the order of the patches. Only the lean path has filters before ext_authz.
    """
    at, last = _place_of_ext_authz(chain), chain[-1]
    at_ext_authz, at_router = _match(target, Namespace.CALLER), _match(target, last.name)
    return [
        *(_patch("HTTP_FILTER", at_ext_authz, "INSERT_BEFORE", _snake(one)) for one in chain[:at]),
        *(
            _patch("HTTP_FILTER", at_router, "INSERT_BEFORE", _snake(one))
            for one in chain[at + 1 : -1]
        ),
        _patch("HTTP_FILTER", at_router, "MERGE", _snake(last)),
    ]


def _place_of_ext_authz(chain: list[HttpFilter]) -> int:
    return [one.name for one in chain].index(Namespace.CALLER)


def _patch(
    apply_to: str, match: Mapping[str, object], operation: str, value: Mapping[str, object]
) -> Patch:
    return {"applyTo": apply_to, "match": match, "patch": {"operation": operation, "value": value}}


def _match(target: PatchTarget, sub_filter: str | None = None) -> dict[str, object]:
    filter_match: dict[str, object] = {"name": _MANAGER}
    if sub_filter is not None:
        filter_match["subFilter"] = {"name": str(sub_filter)}
    return {
        "context": target.context,
        "proxy": {"proxyVersion": ISTIO_VERSIONS},
        "listener": {**target.listener, "filterChain": {"filter": filter_match}},
    }


def _snake(message: betterproto2.Message) -> Mapping[str, object]:
    """The message with the field names of Envoy's documentation."""
    return message.to_dict(casing=betterproto2.Casing.SNAKE)
