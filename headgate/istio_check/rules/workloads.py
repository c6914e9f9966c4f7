"""Is each request metered once, is each workload scaled once, and do alerts have statistics?"""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations

from headgate.istio_check.attachments import Attachment, our_attachments
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, Service, is_selected
from headgate.istio_check.routing import Destination, Route, routes

ALWAYS_THERE = (
    "cluster_manager.", "listener_manager.", "server.", "cluster.xds-grpc.", "wasm.",
)  # fmt: skip
"""Prefixes of the statistics that Istio's proxies always have."""
_METRIC = re.compile(r"\benvoy_([a-z0-9_]{1,120})")
_ENDINGS = ("_bucket", "_count", "_sum", "_total")
_FAMILIES = {"cluster": "cluster.outbound|8000||host;", "http": "http.outbound_0.0.0.0_443;"}
_MAX_DOTS = 2


def metered_once(mesh: Mesh) -> Iterator[Finding]:
    """Pods whose sidecars decide get only requests that no other proxy has decided."""
    attached = our_attachments(mesh)
    sidecars = [each for each in attached if "SIDECAR_INBOUND" in each.contexts]
    has_gateway = any("GATEWAY" in each.contexts for each in attached)
    reported = set()
    for route in routes(mesh):
        for destination in route.destinations:
            is_mirror = destination.is_mirror
            service = mesh.services.get(destination.host)
            is_second = is_mirror or (has_gateway and bool(route.models))
            key = (route.manifest.title, destination.host, is_mirror)
            if key not in reported and is_second and _decides(mesh, sidecars, service):
                reported.add(key)
                yield _metered_twice(route, destination)


def _decides(mesh: Mesh, sidecars: list[Attachment], service: Service | None) -> bool:
    """Whether sidecars that decide requests are attached to the pods of a service."""
    return service is not None and any(
        sidecar.namespace == service.manifest.namespace
        and (sidecar.targets or _share_pods(mesh, sidecar.labels, service.selector))
        for sidecar in sidecars
    )


def _metered_twice(route: Route, destination: Destination) -> Finding:
    source = "mirrored" if destination.is_mirror else "decided at the gateway"
    message = (
        f"these requests are {source}, and the sidecars of {destination.host} meter them again"
    )
    remedy = "the component gateway or the component sidecar, and no mirror to metered pods"
    rule, manifest = MeshRule.METERED_TWICE, route.manifest
    return finding_at(rule, manifest, destination.path, message, remedy)


def scalers(mesh: Mesh) -> Iterator[Finding]:
    """A workload has one scaler: two would undo each other's work."""
    by_target: dict[tuple[str, str, str], Manifest] = {}
    for scaler_kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in mesh.kind(scaler_kind):
            target = mapping(scaler.spec.get("scaleTargetRef"))
            kind, name = text(target.get("kind")) or "Deployment", text(target.get("name"))
            first = by_target.setdefault((scaler.namespace, kind, name), scaler)
            if first is not scaler:
                message = f"{first.title} scales {kind} {name} already"
                path: KeyPath = ("spec", "scaleTargetRef")
                yield finding_at(MeshRule.SCALERS_SEVERAL, scaler, path, message, "one of them")


def statistics(mesh: Mesh) -> Iterator[Finding]:
    """Istio's proxies have every statistic that an alert reads."""
    if mesh.config is None:
        return
    matcher = mapping(mapping(mesh.config.value.get("defaultConfig")).get("proxyStatsMatcher"))
    for manifest in mesh.kind("PrometheusRule"):
        for path, expression in _expressions(manifest):
            for name in dict.fromkeys(_METRIC.findall(expression)):
                if not any(_is_included(statistic, matcher) for statistic in _statistics(name)):
                    message = f"no proxy has the statistic envoy_{name}, so the alert never fires"
                    remedy = f".*{_middle(name)}.* among inclusionRegexps of proxyStatsMatcher"
                    yield finding_at(MeshRule.STATS_EXCLUDED, manifest, path, message, remedy)


def _share_pods(mesh: Mesh, labels: Mapping[str, object], selector: Mapping[str, object]) -> bool:
    return bool(selector) and any(
        is_selected(labels, pods.labels) and is_selected(selector, pods.labels)
        for pods in mesh.pods
    )


def _expressions(manifest: Manifest) -> Iterator[tuple[KeyPath, str]]:
    for at, group in enumerate(items(manifest.spec.get("groups"))):
        for number, rule in enumerate(items(mapping(group).get("rules"))):
            path: KeyPath = ("spec", "groups", at, "rules", number, "expr")
            yield path, text(mapping(rule).get("expr"))


def _statistics(name: str) -> Iterator[str]:
    """The names that the statistic may have in Envoy; Prometheus' have underscores for dots."""
    for ending in ("", *(ending for ending in _ENDINGS if name.endswith(ending))):
        family, _, rest = name.removesuffix(ending).partition("_")
        yield name.removesuffix(ending)
        yield from _dotted(_FAMILIES.get(family, family), rest.split("_"))


def _dotted(start: str, words: list[str]) -> Iterator[str]:
    for dots in range(_MAX_DOTS + 1):
        for chosen in combinations(range(1, len(words)), dots):
            inner = "".join(
                ("." if at in chosen else "_" if at else "") + word for at, word in enumerate(words)
            )
            yield f"{start}.{inner}"


def _is_included(statistic: str, matcher: Mapping[str, object]) -> bool:
    if statistic.startswith(ALWAYS_THERE):
        return True
    if statistic.replace(".", "_").startswith("cluster_manager"):
        return True
    prefixes = tuple(map(text, items(matcher.get("inclusionPrefixes"))))
    suffixes = tuple(map(text, items(matcher.get("inclusionSuffixes"))))
    patterns = map(text, items(matcher.get("inclusionRegexps")))
    by_end = statistic.startswith(prefixes) or statistic.endswith(suffixes)
    return by_end or any(_matches(pattern, statistic) for pattern in patterns)


def _matches(pattern: str, statistic: str) -> bool:
    try:
        return bool(pattern) and re.fullmatch(pattern, statistic) is not None
    except re.error:
        return False


def _middle(name: str) -> str:
    return name.partition("_")[2] or name
