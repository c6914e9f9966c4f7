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


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One entry of `configPatches`, and its path in the EnvoyFilter.

    `anchor` is the HTTP filter that the patch is inserted beside, "" if it names none.
    """

    manifest: Manifest
    path: KeyPath
    apply_to: str
    context: str
    anchor: str
    proxy_version: str
    operation: str
    value: Mapping[str, object]

    @property
    def name(self) -> str:
        """The name of the filter that the patch adds."""
        return text(self.value.get("name"))


@dataclass(slots=True)
class Attachment:
    """The workloads that some EnvoyFilters choose, by labels or by `targetRefs`."""

    namespace: str
    labels: Mapping[str, object]
    targets: str
    patches: list[Patch] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Whether these workloads decide requests."""
        return any(patch.name.startswith(OURS) for patch in self.patches)

    @property
    def contexts(self) -> set[str]:
        return {patch.context for patch in self.patches}

    def is_chosen_by(self, policy: Manifest) -> bool:
        """Whether an object applies to the workloads by its selector, targetRefs or namespace."""
        if policy.namespace not in (self.namespace, ROOT_NAMESPACE):
            return False
        targets = items(policy.spec.get("targetRefs"))
        if targets or self.targets:
            return _canonical_targets(targets) == self.targets
        return is_selected(_labels(policy), self.labels)

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


def all_patches(mesh: Mesh) -> Iterator[Patch]:
    """The patches of every EnvoyFilter."""
    for manifest in mesh.kind("EnvoyFilter"):
        yield from patches_of(manifest)


def attachments(mesh: Mesh) -> list[Attachment]:
    """Every attachment, each with its patches in the order in which istiod applies them."""
    by_choice: dict[tuple[str, str, str], Attachment] = {}
    for manifest in sorted(mesh.kind("EnvoyFilter"), key=_rank):
        labels = mapping(mapping(manifest.spec.get("workloadSelector")).get("labels"))
        targets = _canonical_targets(items(manifest.spec.get("targetRefs")))
        choice = (manifest.namespace, _canonical_labels(labels), targets)
        chosen = by_choice.setdefault(choice, Attachment(manifest.namespace, labels, targets))
        chosen.patches += patches_of(manifest)
    return list(by_choice.values())


def our_attachments(mesh: Mesh) -> list[Attachment]:
    """The attachments whose workloads decide requests."""
    return [attachment for attachment in attachments(mesh) if attachment.is_ours]


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
        proxy_version=text(mapping(match.get("proxy")).get("proxyVersion")),
        operation=text(change.get("operation")),
        value=mapping(change.get("value")),
    )


def _labels(policy: Manifest) -> object:
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
