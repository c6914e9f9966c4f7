"""Do the patches of EnvoyFilters take effect, and in the right place?"""

from collections.abc import Iterator, Sequence

from headgate.istio_check.attachments import (
    EXT_AUTHZ,
    GATEWAY_NAME,
    OURS,
    Attachment,
    Patch,
    all_patches,
    generated_chain,
    is_headgates,
    our_attachments,
    patched_chain,
    patches_of,
    workloads,
)
from headgate.istio_check.clusters import clusters_named
from headgate.istio_check.extensions import VERSIONS, matching_versions
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, items, mapping, text
from headgate.istio_check.mesh import ROOT_NAMESPACE, Mesh
from headgate.policy.problems import hint

INSERTS = ("INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER")
_SUB_FILTER = ("match", "listener", "filterChain", "filter", "subFilter", "name")
_REFERENCED = "envoyfilter.istio.io/referenced-services"
_PROXY_VERSION = r"proxyVersion: ^1\.(29|30|31)\..*"
_NOT_ALWAYS_PATCHED = (EXT_AUTHZ, "headgate.usage_tap")
"""Steps of the request path that istiod adds, or that one way of counting does without."""


def anchors(mesh: Mesh) -> Iterator[Finding]:
    """A patch beside an absent filter does nothing, and no log line says so."""
    for attached in our_attachments(mesh):
        chain, lost = patched_chain(generated_chain(mesh, attached), attached.patches)
        for patch in (patch for patch in lost if patch in attached.own):
            message = f"there is no filter {patch.anchor}, so the patch does nothing"
            message += hint(patch.anchor, chain)
            if patch.anchor == EXT_AUTHZ:
                message += "; an AuthorizationPolicy with the action CUSTOM for these pods adds it"
            remedy = f"one of: {', '.join(dict.fromkeys(chain))}"
            path: KeyPath = (*patch.path, *_SUB_FILTER)
            yield finding_at(MeshRule.ANCHOR_ABSENT, patch.manifest, path, message, remedy)


def operations(mesh: Mesh) -> Iterator[Finding]:
    """HTTP filters are inserted before the router, which must be the last filter."""
    for patch in all_patches(mesh):
        if patch.apply_to == "HTTP_FILTER" and patch.operation == "ADD":
            path: KeyPath = (*patch.path, "patch", "operation")
            message = "ADD puts the filter behind the router, so Envoy refuses the listener"
            yield finding_at(
                MeshRule.PATCH_OPERATION, patch.manifest, path, message, "INSERT_BEFORE"
            )
        if "filterClass" in _change(patch):
            path = (*patch.path, "patch", "filterClass")
            message = "istiod ignores filterClass: it does not order filters"
            remedy = "INSERT_BEFORE or INSERT_AFTER with a subFilter"
            yield finding_at(MeshRule.FILTER_CLASS, patch.manifest, path, message, remedy)


def priorities(mesh: Mesh) -> Iterator[Finding]:
    """istiod applies several objects that insert filters by priority, and then by age."""
    for manifest in mesh.kind("EnvoyFilter"):
        inserts = any(patch.operation in INSERTS for patch in patches_of(manifest))
        if "priority" not in manifest.spec and inserts:
            message = "without a priority, the age of the objects decides the order of filters"
            path: KeyPath = ("spec", "priority")
            remedy = "priority: a multiple of 10"
            yield finding_at(MeshRule.PRIORITY_MISSING, manifest, path, message, remedy)


def versions(mesh: Mesh) -> Iterator[Finding]:
    """A patch goes only to versions of Istio that it was tested with."""
    for patch in all_patches(mesh):
        pattern = patch.proxy_version
        if pattern and not matching_versions(pattern):
            message = f"{pattern} matches none of {', '.join(VERSIONS)}: the patch does nothing"
        elif not pattern and patch.adds_ours:
            message = "the patch goes to every version of Istio, even if its Envoy lacks the filter"
        else:
            continue
        path: KeyPath = (*patch.path, "match", "proxy", "proxyVersion")
        yield finding_at(MeshRule.PROXY_VERSION, patch.manifest, path, message, _PROXY_VERSION)


def referenced(mesh: Mesh) -> Iterator[Finding]:
    """An annotation names the services that patches use.

    Some gateways and waypoints get only the clusters of services that are referenced.
    """
    for manifest in mesh.kind("EnvoyFilter"):
        annotations = mapping(mapping(manifest.value.get("metadata")).get("annotations"))
        named = {
            part.strip().rpartition("/")[2]
            for part in text(annotations.get(_REFERENCED)).split(",")
        }
        hosts = {host for patch in patches_of(manifest) for host in clusters_named(patch)}
        for host in sorted(hosts - named):
            message = f"the clusters of {host} are used but not referenced: some gateways lack them"
            path: KeyPath = ("metadata", "annotations", _REFERENCED)
            remedy = f"{_REFERENCED}: {_reference(host)}"
            yield finding_at(MeshRule.REFERENCED_SERVICES, manifest, path, message, remedy)


def selectors(mesh: Mesh) -> Iterator[Finding]:
    """An EnvoyFilter patches the proxies of some workloads, and not of the whole namespace."""
    for manifest in mesh.kind("EnvoyFilter"):
        labels = mapping(mapping(manifest.spec.get("workloadSelector")).get("labels"))
        namespace = manifest.namespace
        if not is_headgates(manifest):
            continue
        if not labels and not items(manifest.spec.get("targetRefs")):
            message = f"every proxy in {namespace or 'its namespace'} is patched"
            remedy = "workloadSelector.labels of the pods, or targetRefs for a waypoint"
            yield finding_at(MeshRule.NO_SELECTOR, manifest, ("spec",), message, remedy)
        elif labels and not _has_workload(mesh, namespace, labels):
            shown = ", ".join(f"{key}: {value}" for key, value in labels.items())
            place = "any namespace" if namespace == ROOT_NAMESPACE else namespace
            message = f"no Gateway and no pods in {place} have {shown}: nothing is patched"
            remedy = "the labels and the namespace of the gateway's pods"
            path: KeyPath = ("spec", "workloadSelector", "labels")
            yield finding_at(MeshRule.NO_WORKLOAD, manifest, path, message, remedy)


def names(mesh: Mesh) -> Iterator[Finding]:
    """Our filters have names of their own: settings of routes and metadata go by the name."""
    for attached in our_attachments(mesh):
        generated = generated_chain(mesh, attached)
        seen: set[str] = set()
        for patch in attached.patches:
            if patch.apply_to != "HTTP_FILTER" or patch.operation not in (*INSERTS, "ADD"):
                continue
            path: KeyPath = (*patch.path, "patch", "value", "name")
            if patch.name in generated:
                message = f"istiod gives a filter of these proxies the name {patch.name} too"
                remedy = "a name of its own, as headgate.ext_proc"
                yield finding_at(MeshRule.FILTER_NAME, patch.manifest, path, message, remedy)
            elif patch.name in seen and patch.name.startswith(OURS):
                message = f"a filter {patch.name} is inserted already: requests would pass it twice"
                remedy = "one of them"
                yield finding_at(MeshRule.FILTER_NAME, patch.manifest, path, message, remedy)
            seen.add(patch.name)


def chain(mesh: Mesh) -> Iterator[Finding]:
    """Workloads that decide requests have all steps of the request path, in its order."""
    for attached in our_attachments(mesh):
        patched, _ = patched_chain(generated_chain(mesh, attached), attached.patches)
        steps = list(dict.fromkeys(name for name in patched if name in mesh.chain))
        inserted = {
            patch.name: patch
            for patch in attached.patches
            if patch.operation in INSERTS and patch.name in mesh.chain
        }
        yield from _missing_steps(mesh, attached, steps, inserted)
        yield from _misplaced_step(mesh, steps, inserted)


def _missing_steps(
    mesh: Mesh, attached: Attachment, steps: Sequence[str], inserted: dict[str, Patch]
) -> Iterator[Finding]:
    first = inserted[min(inserted, key=mesh.chain.index)] if inserted else attached.patches[0]
    for name in mesh.chain:
        if name not in steps and name not in _NOT_ALWAYS_PATCHED:
            message = f"the step {name} of the request path is missing"
            remedy = "the EnvoyFilters that `headgate render istio` prints"
            yield finding_at(MeshRule.FILTER_MISSING, first.manifest, ("spec",), message, remedy)


def _misplaced_step(
    mesh: Mesh, steps: Sequence[str], inserted: dict[str, Patch]
) -> Iterator[Finding]:
    expected = [name for name in mesh.chain if name in steps]
    pairs = zip(steps, expected, strict=True)
    misplaced = next((step for step, wanted in pairs if step != wanted), None)
    if misplaced is not None and misplaced in inserted:
        patch = inserted[misplaced]
        path: KeyPath = (*patch.path, "patch", "value", "name")
        message = f"the order of the filters is {', '.join(steps)}"
        remedy = ", ".join(expected)
        yield finding_at(MeshRule.FILTER_ORDER, patch.manifest, path, message, remedy)


def _change(patch: Patch) -> dict[str, object]:
    """The field `patch` of an entry of `configPatches`."""
    entries = items(patch.manifest.spec.get("configPatches"))
    return mapping(mapping(entries[int(patch.path[-1])]).get("patch"))


def _reference(host: str) -> str:
    return f"{host.split('.')[1]}/{host}" if host.count(".") > 1 else host


def _has_workload(mesh: Mesh, namespace: str, labels: dict[str, object]) -> bool:
    """Whether pods or a Gateway have the labels."""
    has_workload = bool(workloads(mesh, namespace, labels))
    return has_workload or _has_kubernetes_gateway(mesh, namespace, labels)


def _has_kubernetes_gateway(mesh: Mesh, namespace: str, labels: dict[str, object]) -> bool:
    """Whether a Gateway of the Gateway API has the labels.

    Its pods are istiod's, labelled with its name, or the platform's (`addresses`).
    """
    return any(
        namespace in (gateway.namespace, ROOT_NAMESPACE)
        and labels.get(GATEWAY_NAME, gateway.name) == gateway.name
        for gateway in mesh.kind("Gateway", "k8s.io")
    )
