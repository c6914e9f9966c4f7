"""The workloads that EnvoyFilters are attached to, and the chain of HTTP filters that results."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text, whole
from headgate.istio_check.mesh import ROOT_NAMESPACE, Mesh, is_selected

EXT_AUTHZ = "envoy.filters.http.ext_authz"
ROUTER = "envoy.filters.http.router"
OURS = "headgate."
"""The prefix of the names of our own HTTP filters."""
EXT_PROC = "headgate.ext_proc"
SLOT_SETTLER = "headgate.slot_settler"
"""The filters that only the standard path and only the lean path have."""
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
"""The label with which istiod marks the pods of a Gateway of the Gateway API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One entry of `configPatches`, and its path in the EnvoyFilter.

    `anchor` is the HTTP filter that the patch is inserted beside, "" if it names none. `service` is
    the host whose clusters it changes, "" for those of all hosts.
    """

    manifest: Manifest
    path: KeyPath
    apply_to: str
    context: str
    anchor: str
    service: str
    proxy_version: str
    operation: str
    value: Mapping[str, object]

    @property
    def name(self) -> str:
        """The name of the filter that the patch adds or changes, as its value has it."""
        return text(self.value.get("name"))

    @property
    def adds(self) -> bool:
        """Whether the patch adds its value, in place of changing what is there."""
        return self.operation != "MERGE"

    @property
    def adds_ours(self) -> bool:
        """Whether the patch adds one of our own filters."""
        return self.adds and self.name.startswith(OURS)


@dataclass(slots=True, kw_only=True)
class Attachment:
    """The workloads that some EnvoyFilters choose, by labels or by `targetRefs`.

    `workloads` holds the labels of each kind of pods, as far as the YAML shows them. `own` holds
    the patches of the EnvoyFilters with exactly this choice; `patches` also has those of the
    others that reach the same pods, such as one of the root namespace.
    """

    namespace: str
    labels: Mapping[str, object]
    targets: str
    workloads: tuple[Mapping[str, object], ...]
    own: list[Patch] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Whether these workloads decide requests."""
        return any(patch.adds_ours for patch in self.own)

    @property
    def contexts(self) -> set[str]:
        return {patch.context for patch in self.own}

    def is_at_gateway(self, gateway: Manifest) -> bool:
        """Whether a Gateway, of Istio or of Kubernetes, is at these workloads."""
        if "SIDECAR_INBOUND" in self.contexts or gateway.namespace != self.namespace:
            return False
        if gateway.group.endswith("k8s.io"):
            is_named = self.labels.get(GATEWAY_NAME, gateway.name) == gateway.name
            return f"/{gateway.name}" in self.targets if self.targets else is_named
        return bool(self.labels) and is_selected(self.labels, mapping(gateway.spec.get("selector")))

    def is_chosen_by(self, policy: Manifest) -> bool:
        """Whether an object applies to the workloads by its selector, targetRefs or namespace."""
        if policy.namespace not in (self.namespace, ROOT_NAMESPACE):
            return False
        targets = items(policy.spec.get("targetRefs"))
        if targets or self.targets:
            return _canonical_targets(targets) == self.targets
        return any(is_selected(chosen_labels(policy), labels) for labels in self.workloads)

    def custom_policies(self, mesh: Mesh) -> list[Manifest]:
        """The AuthorizationPolicies for which istiod adds ext_authz to the workloads."""
        return [
            policy
            for policy in mesh.kind("AuthorizationPolicy")
            if policy.spec.get("action") == "CUSTOM" and self.is_chosen_by(policy)
        ]


def patches_of(manifest: Manifest) -> list[Patch]:
    """The patches of one EnvoyFilter."""
    return [
        _patch(manifest, ("spec", "configPatches", at), mapping(entry))
        for at, entry in enumerate(items(manifest.spec.get("configPatches")))
    ]


def is_headgates(manifest: Manifest) -> bool:
    """Whether an EnvoyFilter is part of Headgate: by its name, or by a filter that it adds."""
    is_named = manifest.name.startswith("headgate")
    return is_named or any(patch.adds_ours for patch in patches_of(manifest))


def all_patches(mesh: Mesh) -> Iterator[Patch]:
    """The patches of every EnvoyFilter."""
    for manifest in mesh.kind("EnvoyFilter"):
        yield from patches_of(manifest)


def attachments(mesh: Mesh) -> list[Attachment]:
    """Every attachment, each with its patches in the order in which istiod applies them."""
    by_choice: dict[tuple[str, str, str], Attachment] = {}
    in_order = [(each, patches_of(each)) for each in sorted(mesh.kind("EnvoyFilter"), key=_rank)]
    for manifest, patches in in_order:
        labels = mapping(mapping(manifest.spec.get("workloadSelector")).get("labels"))
        targets = _canonical_targets(items(manifest.spec.get("targetRefs")))
        choice = (manifest.namespace, _canonical_labels(labels), targets)
        if choice not in by_choice:
            by_choice[choice] = Attachment(
                namespace=manifest.namespace,
                labels=labels,
                targets=targets,
                workloads=workloads(mesh, manifest.namespace, labels) or (labels,),
            )
        by_choice[choice].own += patches
    for attached in by_choice.values():
        for manifest, patches in in_order:
            if attached.is_chosen_by(manifest):
                attached.patches += [patch for patch in patches if _fits(patch, attached)]
    return list(by_choice.values())


def workloads(
    mesh: Mesh, namespace: str, labels: Mapping[str, object]
) -> tuple[Mapping[str, object], ...]:
    """The labels of pods and gateways that a selector chooses. The root namespace has them all.

    The platform owns the gateway's pods, so the Gateway's selector counts as their labels.
    """
    gateways = [
        (gateway.namespace, mapping(gateway.spec.get("selector")))
        for gateway in mesh.kind("Gateway", "istio.io")
    ]
    pods = [(each.namespace, each.labels) for each in mesh.pods]
    return tuple(
        found
        for place, found in (*gateways, *pods)
        if namespace in (place, ROOT_NAMESPACE) and is_selected(labels, found)
    )


def _fits(patch: Patch, attached: Attachment) -> bool:
    """Whether a patch is for the listeners that the attachment's own patches are for."""
    return patch.context in ("", "ANY", *attached.contexts) or "ANY" in attached.contexts


def our_attachments(mesh: Mesh) -> list[Attachment]:
    """The attachments whose workloads decide requests."""
    return [attachment for attachment in attachments(mesh) if attachment.is_ours]


def our_gateways(mesh: Mesh) -> list[Manifest]:
    """The Gateways, of Istio or of Kubernetes, whose proxies decide requests."""
    ours = our_attachments(mesh)
    return [
        gateway
        for gateway in mesh.kind("Gateway")
        if any(attached.is_at_gateway(gateway) for attached in ours)
    ]


def generated_chain(mesh: Mesh, attachment: Attachment) -> list[str]:
    """The HTTP filters that istiod generates for the workloads, as far as the objects show."""
    policies = mesh.kind("AuthorizationPolicy")
    chain = ["istio.metadata_exchange"]
    if attachment.custom_policies(mesh):
        chain.append(EXT_AUTHZ)
    if any(attachment.is_chosen_by(policy) for policy in mesh.kind("RequestAuthentication")):
        chain.append("envoy.filters.http.jwt_authn")
    if any(attachment.is_chosen_by(policy) for policy in policies):
        chain.append("envoy.filters.http.rbac")
    if any(mesh.kind("InferencePool")) and any(mesh.kind("Gateway", "k8s.io")):
        chain.append("envoy.filters.http.ext_proc")
    chain.append("envoy.filters.http.grpc_stats")
    if "SIDECAR_INBOUND" not in attachment.contexts:
        chain.append("istio.alpn")
    return [*chain, "envoy.filters.http.fault", "envoy.filters.http.cors", "istio.stats", ROUTER]


def patched_chain(chain: Iterable[str], patches: Iterable[Patch]) -> tuple[list[str], list[Patch]]:
    """The chain after the patches of HTTP filters, and the patches whose anchor is absent."""
    patched = list(chain)
    lost = []
    for patch in patches:
        if patch.apply_to != "HTTP_FILTER":
            continue
        if patch.anchor and patch.anchor not in patched:
            lost.append(patch)
        else:
            _apply(patched, patch)
    return patched, lost


def _apply(chain: list[str], patch: Patch) -> None:
    """Applies one patch whose anchor, if it names one, is in the chain."""
    anchor = chain.index(patch.anchor) if patch.anchor else None
    match patch.operation:
        case "INSERT_FIRST":
            chain.insert(0, patch.name)
        case "INSERT_BEFORE":
            chain.insert(anchor or 0, patch.name)
        case "INSERT_AFTER":
            chain.insert(len(chain) if anchor is None else anchor + 1, patch.name)
        case "REPLACE" if anchor is not None:
            chain[anchor] = patch.name
        case "REMOVE" if patch.anchor:
            chain.remove(patch.anchor)


def _rank(manifest: Manifest) -> tuple[bool, int, str]:
    is_local = manifest.namespace != ROOT_NAMESPACE
    return (is_local, whole(manifest.spec.get("priority")) or 0, manifest.title)


def _patch(manifest: Manifest, path: KeyPath, entry: Mapping[str, object]) -> Patch:
    match = mapping(entry.get("match"))
    listener = mapping(match.get("listener"))
    matched_filter = mapping(mapping(listener.get("filterChain")).get("filter"))
    change = mapping(entry.get("patch"))
    return Patch(
        manifest=manifest,
        path=path,
        apply_to=text(entry.get("applyTo")),
        context=text(match.get("context")),
        anchor=text(mapping(matched_filter.get("subFilter")).get("name")),
        service=text(mapping(match.get("cluster")).get("service")),
        proxy_version=text(mapping(match.get("proxy")).get("proxyVersion")),
        operation=text(change.get("operation")),
        value=mapping(change.get("value")),
    )


def chosen_labels(policy: Manifest) -> object:
    """The labels of a policy's selector (`matchLabels`) or of a Sidecar's (`labels`)."""
    selector = mapping(policy.spec.get("selector"))
    workloads = mapping(policy.spec.get("workloadSelector"))
    return selector.get("matchLabels") or workloads.get("labels")


def _canonical_labels(labels: Mapping[str, object]) -> str:
    return json.dumps(labels, sort_keys=True, default=str)


def _canonical_targets(targets: Iterable[object]) -> str:
    names: Iterator[str] = (
        "/".join(text(mapping(target).get(key)) for key in ("group", "kind", "name"))
        for target in targets
    )
    return ",".join(sorted(names))
