"""The request path as Istio's EnvoyFilters: what a mesh runs is what one box runs.

istiod builds the listener, the routes, ext_authz (from an AuthorizationPolicy with the action
CUSTOM) and the access log (from a Telemetry). Patches add the rest, from the functions that build
the one box.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import betterproto2
from envoy_data_plane.google.protobuf import Any

from headgate.core.contract import Counting, Namespace
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.filters import ext_authz, http_filters
from headgate.dataplane.listener import reading_rules

SERVICES_HOST = "headgate.headgate.svc.cluster.local"
SERVICES_PORT = 9001
SERVICES_CLUSTER = f"outbound|{SERVICES_PORT}||{SERVICES_HOST}"
"""istiod's own cluster of the services: it has mTLS, endpoints and outlier detection. One that an
EnvoyFilter adds has none of them, and Envoy's limit of 1,024 requests."""
ISTIO_VERSIONS = r"^1\.(29|30|31)\..*"
"""The versions whose Envoy has all that the patches use (`match.proxy.proxyVersion`, RE2)."""
MODEL_PORT = 8000
"""Of a vLLM pod. A sidecar has listeners for its other ports, too."""
WAYPOINT_LISTENER = "main_internal"
"""Where a waypoint reads requests. Another of its listeners, `connect_terminate`, has a connection
manager as well, which opens the tunnels that requests come in: it must stay as it is."""

Patch: TypeAlias = Mapping[str, object]
"""One entry of `configPatches`."""

_MANAGER = "envoy.filters.network.http_connection_manager"
_REFERENCED = "envoyfilter.istio.io/referenced-services"
"""Makes istiod send the services' cluster to gateways and waypoints that get only what they use."""


class Attach(StrEnum):
    """Where in a mesh the request path is attached."""

    GATEWAY = "gateway"
    SIDECAR = "sidecar"
    WAYPOINT = "waypoint"


@dataclass(frozen=True, slots=True)
class Place:
    """The workloads of one way to attach: their namespace, how they are chosen, istiod's word for
    the side of them that is patched, and which listeners there."""

    namespace: str
    chosen_by: Mapping[str, object]
    context: str
    listener: Mapping[str, object]


PLACES = {
    Attach.GATEWAY: Place(
        "istio-ingress",
        {"workloadSelector": {"labels": {"istio": "ingressgateway"}}},
        "GATEWAY",
        {},
    ),
    Attach.SIDECAR: Place(
        "vllm",
        {"workloadSelector": {"labels": {"headgate.dev/serves": "vllm"}}},
        "SIDECAR_INBOUND",
        {"portNumber": MODEL_PORT},
    ),
    Attach.WAYPOINT: Place(
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
"""A waypoint runs patches of the context SIDECAR_INBOUND, and heeds only targetRefs."""


def envoy_filters(attach: Attach, counting: Counting = Counting.PROXY) -> list[dict[str, object]]:
    """The objects to apply, in the order in which istiod applies them (`priority`)."""
    place = PLACES[attach]
    return [
        _object("headgate-reading", place, 10, [_reading(place)]),
        _object("headgate-ext-authz", place, 20, [_ext_authz(place)]),
        _object("headgate-filters", place, 30, _filters(place, counting)),
    ]


def _object(name: str, place: Place, priority: int, patches: list[Patch]) -> dict[str, object]:
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": name,
            "namespace": place.namespace,
            "annotations": {_REFERENCED: f"headgate/{SERVICES_HOST}"},
        },
        "spec": {"priority": priority, **place.chosen_by, "configPatches": patches},
    }


def _reading(place: Place) -> Patch:
    """How strictly requests are read. Lists of a merge are appended; istiod's are empty here."""
    rules = Any.pack(reading_rules())
    value = {"name": _MANAGER, "typed_config": _snake(rules)}
    return _patch("NETWORK_FILTER", _match(place), "MERGE", value)


def _ext_authz(place: Place) -> Patch:
    """What an extension provider cannot say of ext_authz is merged into the filter that istiod has
    made of it."""
    value = _snake(ext_authz(SERVICES_CLUSTER))
    return _patch("HTTP_FILTER", _match(place, Namespace.CALLER), "MERGE", value)


def _filters(place: Place, counting: Counting) -> list[Patch]:
    """Each goes right before the router, so that they stand in the order of the patches."""
    *ours, last = http_filters(SERVICES_CLUSTER, BODY_LIMIT_BYTES, counting)
    at_router = _match(place, last.name)
    inserted = [one for one in ours if one.name != Namespace.CALLER]
    return [
        *(_patch("HTTP_FILTER", at_router, "INSERT_BEFORE", _snake(one)) for one in inserted),
        _patch("HTTP_FILTER", at_router, "MERGE", _snake(last)),
    ]


def _patch(
    to: str, match: Mapping[str, object], operation: str, value: Mapping[str, object]
) -> Patch:
    return {"applyTo": to, "match": match, "patch": {"operation": operation, "value": value}}


def _match(place: Place, sub_filter: str | None = None) -> dict[str, object]:
    chosen: dict[str, object] = {"name": _MANAGER}
    if sub_filter is not None:
        chosen["subFilter"] = {"name": str(sub_filter)}
    return {
        "context": place.context,
        "proxy": {"proxyVersion": ISTIO_VERSIONS},
        "listener": {**place.listener, "filterChain": {"filter": chosen}},
    }


def _snake(message: betterproto2.Message) -> Mapping[str, object]:
    """With the field names of Envoy's documentation."""
    return message.to_dict(casing=betterproto2.Casing.SNAKE)
