"""Where EnvoyFilters are attached, and the chain of HTTP filters that comes of it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import ROOT_NAMESPACE, Mesh, is_selected

MANAGER = "envoy.filters.network.http_connection_manager"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
ROUTER = "envoy.filters.http.router"
OURS = "headgate."
"""What the names of our own HTTP filters begin with."""
EXT_PROC = "headgate.ext_proc"


@dataclass(frozen=True, slots=True)
class Patch:
    """One entry of `configPatches` and where it stands."""

    manifest: Manifest
    path: KeyPath
    to: str
    context: str
    anchor: str
    proxy_version: str
    operation: str
    value: Mapping[str, object]

    @property
    def name(self) -> str:
        """Of the filter that it brings."""
        return text(self.value.get("name"))


@dataclass(slots=True)
class Place:
    """The workloads that some EnvoyFilters choose: by labels, or by `targetRefs`."""

    namespace: str
    labels: Mapping[str, object]
    targets: str
    patches: list[Patch] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Whether requests are decided here."""
        return any(one.name.startswith(OURS) for one in self.patches)

    @property
    def contexts(self) -> set[str]:
        return {one.context for one in self.patches}

    def takes(self, policy: Manifest) -> bool:
        """Whether an object with a selector, targetRefs or neither applies to the workloads."""
        if policy.namespace not in (self.namespace, ROOT_NAMESPACE):
            return False
        targets = items(policy.spec.get("targetRefs"))
        if targets or self.targets:
            return _canonical_targets(targets) == self.targets
        return is_selected(_labels(policy), self.labels)

    def custom_policies(self, mesh: Mesh) -> list[Manifest]:
        """The AuthorizationPolicies that have istiod make ext_authz for the workloads."""
        return [
            one
            for one in mesh.kind("AuthorizationPolicy")
            if one.spec.get("action") == "CUSTOM" and self.takes(one)
        ]


def patches_of(one: Manifest) -> list[Patch]:
    """The patches of one EnvoyFilter."""
    return [
        _patch(one, ("spec", "configPatches", at), mapping(entry))
        for at, entry in enumerate(items(one.spec.get("configPatches")))
    ]


def places(mesh: Mesh) -> list[Place]:
    """Where EnvoyFilters act, each with its patches in the order in which istiod applies them."""
    found: dict[tuple[str, str, str], Place] = {}
    for one in sorted(mesh.kind("EnvoyFilter"), key=_rank):
        labels = mapping(mapping(one.spec.get("workloadSelector")).get("labels"))
        targets = _canonical_targets(items(one.spec.get("targetRefs")))
        key = (one.namespace, json.dumps(labels, sort_keys=True, default=str), targets)
        place = found.setdefault(key, Place(one.namespace, labels, targets))
        place.patches += patches_of(one)
    return list(found.values())


def our_places(mesh: Mesh) -> list[Place]:
    """Those where requests are decided."""
    return [place for place in places(mesh) if place.is_ours]


def generated(mesh: Mesh, place: Place) -> list[str]:
    """The HTTP filters that istiod makes there, in their order, as far as the objects tell."""
    authorized = [one for one in mesh.kind("AuthorizationPolicy") if place.takes(one)]
    chain = ["istio.metadata_exchange"]
    if place.custom_policies(mesh):
        chain.append(EXT_AUTHZ)
    if any(place.takes(one) for one in mesh.kind("RequestAuthentication")):
        chain.append("envoy.filters.http.jwt_authn")
    if authorized:
        chain.append("envoy.filters.http.rbac")
    if any(mesh.kind("InferencePool")) and any(mesh.kind("Gateway", "k8s.io")):
        chain.append("envoy.filters.http.ext_proc")
    chain.append("envoy.filters.http.grpc_stats")
    if "SIDECAR_INBOUND" not in place.contexts:
        chain.append("istio.alpn")
    return [*chain, "envoy.filters.http.fault", "envoy.filters.http.cors", "istio.stats", ROUTER]


def applied(chain: Iterable[str], patches: Iterable[Patch]) -> tuple[list[str], list[Patch]]:
    """The chain after the patches of HTTP filters, and the patches whose anchor is not there."""
    now = list(chain)
    lost = []
    for one in patches:
        if one.to != "HTTP_FILTER":
            continue
        if one.anchor and one.anchor not in now:
            lost.append(one)
        elif one.operation == "INSERT_FIRST" or (
            one.operation == "INSERT_BEFORE" and not one.anchor
        ):
            now.insert(0, one.name)
        elif one.operation == "INSERT_BEFORE":
            now.insert(now.index(one.anchor), one.name)
        elif one.operation == "INSERT_AFTER":
            at = now.index(one.anchor) if one.anchor else len(now) - 1
            now.insert(at + 1, one.name)
        elif one.operation == "REMOVE" and one.anchor:
            now.remove(one.anchor)
    return now, lost


def _rank(one: Manifest) -> tuple[bool, int, str]:
    return (one.namespace != ROOT_NAMESPACE, whole(one.spec.get("priority")) or 0, one.title)


def _patch(one: Manifest, path: KeyPath, entry: Mapping[str, object]) -> Patch:
    match = mapping(entry.get("match"))
    listener = mapping(match.get("listener"))
    chosen = mapping(mapping(listener.get("filterChain")).get("filter"))
    change = mapping(entry.get("patch"))
    return Patch(
        one,
        path,
        text(entry.get("applyTo")),
        text(match.get("context")),
        text(mapping(chosen.get("subFilter")).get("name")),
        text(mapping(match.get("proxy")).get("proxyVersion")),
        text(change.get("operation")),
        mapping(change.get("value")),
    )


def _labels(policy: Manifest) -> object:
    """A policy's selector has `matchLabels`; a Sidecar's workloadSelector has `labels`."""
    selector = mapping(policy.spec.get("selector"))
    workloads = mapping(policy.spec.get("workloadSelector"))
    return selector.get("matchLabels") or workloads.get("labels")


def _canonical_targets(targets: Iterable[object]) -> str:
    names: Iterator[str] = (
        "/".join(text(mapping(one).get(key)) for key in ("group", "kind", "name"))
        for one in targets
    )
    return ",".join(sorted(names))
