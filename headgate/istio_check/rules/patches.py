"""Do the patches of EnvoyFilters do anything, and where they should?"""

from collections.abc import Iterator

from headgate.istio_check.attachments import (
    EXT_AUTHZ,
    Patch,
    applied,
    generated,
    our_places,
    patches_of,
    places,
)
from headgate.istio_check.extensions import VERSIONS, matching_versions
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, is_selected
from headgate.istio_check.rules.envoy import clusters_named
from headgate.policy.problems import hint

INSERTS = ("INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER")
_GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
_REFERENCED = "envoyfilter.istio.io/referenced-services"


def anchors(mesh: Mesh) -> Iterator[Finding]:
    """A patch beside a filter that is not there does nothing, and nobody says so."""
    for place in places(mesh):
        chain = generated(mesh, place)
        now, lost = applied(chain, place.patches)
        for one in lost:
            path: KeyPath = (
                *one.path,
                "match",
                "listener",
                "filterChain",
                "filter",
                "subFilter",
                "name",
            )
            what = f"no filter {one.anchor} is there: the patch does nothing" + hint(
                one.anchor, now
            )
            if one.anchor == EXT_AUTHZ:
                what += "; an AuthorizationPolicy with the action CUSTOM for these pods makes it"
            write = f"one of: {', '.join(dict.fromkeys(now))}"
            yield found(Rule.ANCHOR_ABSENT, one.manifest, path, what, write)


def operations(mesh: Mesh) -> Iterator[Finding]:
    """HTTP filters are inserted: the router is the last one."""
    for one in _all(mesh):
        operation: KeyPath = (*one.path, "patch", "operation")
        if one.to == "HTTP_FILTER" and one.operation == "ADD":
            what = "ADD puts the filter behind the router, and Envoy refuses the listener"
            yield found(Rule.PATCH_OPERATION, one.manifest, operation, what, "INSERT_BEFORE")
        change = mapping(_at(one, "patch"))
        if "filterClass" in change:
            path: KeyPath = (*one.path, "patch", "filterClass")
            what = "istiod reads filterClass nowhere: it does not order filters"
            write = "INSERT_BEFORE or INSERT_AFTER with a subFilter"
            yield found(Rule.FILTER_CLASS, one.manifest, path, what, write)


def priorities(mesh: Mesh) -> Iterator[Finding]:
    """Several objects that insert filters are applied by priority, else by age."""
    for one in mesh.kind("EnvoyFilter"):
        if "priority" not in one.spec and any(p.operation in INSERTS for p in patches_of(one)):
            what = "without a priority the age of the objects orders their filters"
            write = "priority: a multiple of 10"
            yield found(Rule.PRIORITY_MISSING, one, ("spec", "priority"), what, write)


def versions(mesh: Mesh) -> Iterator[Finding]:
    """A patch is for the versions of Istio that it has been tried with."""
    for one in _all(mesh):
        path: KeyPath = (*one.path, "match", "proxy", "proxyVersion")
        if not one.proxy_version:
            if one.name.startswith("headgate."):
                what = "the patch goes to any version of Istio, whatever its Envoy knows"
                write = r"proxyVersion: ^1\.(29|30|31)\..*"
                yield found(Rule.PROXY_VERSION, one.manifest, path, what, write)
        elif not matching_versions(one.proxy_version):
            what = (
                f"{one.proxy_version} matches none of {', '.join(VERSIONS)}: the patch does nothing"
            )
            write = r"proxyVersion: ^1\.(29|30|31)\..*"
            yield found(Rule.PROXY_VERSION, one.manifest, path, what, write)


def referenced(mesh: Mesh) -> Iterator[Finding]:
    """Gateways and waypoints get the clusters of what they use; patches have to say."""
    for one in mesh.kind("EnvoyFilter"):
        annotations = mapping(mapping(one.value.get("metadata")).get("annotations"))
        said = {
            part.strip().rpartition("/")[2]
            for part in text(annotations.get(_REFERENCED)).split(",")
        }
        hosts = {host for patch in patches_of(one) for host in clusters_named(patch)}
        for host in sorted(hosts - said):
            what = (
                f"the clusters of {host} are used and not referenced: some gateways do not get them"
            )
            path: KeyPath = ("metadata", "annotations", _REFERENCED)
            yield found(
                Rule.REFERENCED_SERVICES, one, path, what, f"{_REFERENCED}: {_reference(host)}"
            )


def selectors(mesh: Mesh) -> Iterator[Finding]:
    """Whose proxies are patched."""
    for one in mesh.kind("EnvoyFilter"):
        labels = mapping(mapping(one.spec.get("workloadSelector")).get("labels"))
        if not labels and not items(one.spec.get("targetRefs")):
            what = f"every proxy in {one.namespace or 'its namespace'} is patched"
            write = "workloadSelector.labels of the pods, or targetRefs for a waypoint"
            yield found(Rule.NO_SELECTOR, one, ("spec",), what, write)
        elif labels and not _has_workload(mesh, one, labels):
            shown = ", ".join(f"{key}: {value}" for key, value in labels.items())
            what = f"no Gateway and no pods in {one.namespace} have {shown}: nothing is patched"
            write = "the labels and the namespace of the gateway's pods"
            path: KeyPath = ("spec", "workloadSelector", "labels")
            yield found(Rule.NO_WORKLOAD, one, path, what, write)


def names(mesh: Mesh) -> Iterator[Finding]:
    """Per-route configuration finds filters by name: each has one of its own."""
    for place in places(mesh):
        seen: set[str] = set()
        for one in place.patches:
            if one.to != "HTTP_FILTER" or one.operation not in (*INSERTS, "ADD"):
                continue
            path: KeyPath = (*one.path, "patch", "value", "name")
            if one.name.startswith("envoy.filters.http."):
                what = (
                    f"{one.name} is the name of filters that istiod makes, as for an InferencePool"
                )
                write = "a name of its own, as headgate.ext_proc"
                yield found(Rule.FILTER_NAME, one.manifest, path, what, write)
            elif one.name in seen:
                what = f"a filter {one.name} is inserted already: requests would pass it twice"
                yield found(Rule.FILTER_NAME, one.manifest, path, what, "one of them")
            seen.add(one.name)


def chain(mesh: Mesh) -> Iterator[Finding]:
    """Where requests are decided all steps are there, in the order of the request path."""
    for place in our_places(mesh):
        now, _ = applied(generated(mesh, place), place.patches)
        ours = list(dict.fromkeys(name for name in now if name in mesh.chain))
        asked = [name for name in mesh.chain if name in ours]
        by_name = {
            one.name: one
            for one in place.patches
            if one.operation in INSERTS and one.name in mesh.chain
        }
        for name in mesh.chain:
            if name not in ours and name not in (EXT_AUTHZ, "headgate.usage_tap"):
                what = f"the step {name} of the request path is missing"
                write = "the EnvoyFilters that `headgate render istio` prints"
                first = by_name[min(by_name, key=mesh.chain.index)] if by_name else place.patches[0]
                yield found(Rule.FILTER_MISSING, first.manifest, ("spec",), what, write)
        wrong = next((has for has, wants in zip(ours, asked, strict=True) if has != wants), None)
        if wrong is not None and wrong in by_name:
            one = by_name[wrong]
            path: KeyPath = (*one.path, "patch", "value", "name")
            what = f"the filters stand as {', '.join(ours)}"
            yield found(Rule.FILTER_ORDER, one.manifest, path, what, ", ".join(asked))


def _all(mesh: Mesh) -> Iterator[Patch]:
    for one in mesh.kind("EnvoyFilter"):
        yield from patches_of(one)


def _at(one: Patch, key: str) -> object:
    entries = items(one.manifest.spec.get("configPatches"))
    return mapping(entries[int(one.path[-1])]).get(key)


def _reference(host: str) -> str:
    return f"{host.split('.')[1]}/{host}" if host.count(".") > 1 else host


def _has_workload(mesh: Mesh, one: Manifest, labels: dict[str, object]) -> bool:
    """The gateway's pods are the platform's: what stands for them is the Gateway's selector."""
    gateway = any(
        each.namespace == one.namespace and is_selected(labels, mapping(each.spec.get("selector")))
        for each in mesh.kind("Gateway", "istio.io")
    )
    pods = any(
        each.namespace == one.namespace and is_selected(labels, each.labels) for each in mesh.pods
    )
    return gateway or pods or _has_kubernetes_gateway(mesh, one, labels)


def _has_kubernetes_gateway(mesh: Mesh, one: Manifest, labels: dict[str, object]) -> bool:
    """Its pods are istiod's, labelled with its name, or the platform's (`addresses`)."""
    return any(
        each.namespace == one.namespace and labels.get(_GATEWAY_NAME, each.name) == each.name
        for each in mesh.kind("Gateway", "k8s.io")
    )
