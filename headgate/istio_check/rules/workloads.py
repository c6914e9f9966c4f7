"""Is each request metered once, and each workload scaled by one hand? Do alerts have numbers?"""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations

from headgate.istio_check.attachments import our_places
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, is_selected
from headgate.istio_check.routing import routes

ALWAYS_THERE = (
    "cluster_manager.", "listener_manager.", "server.", "cluster.xds-grpc.", "wasm.",
)  # fmt: skip
"""Beginnings of the statistics that Istio's proxies have whatever is configured."""
_METRIC = re.compile(r"\benvoy_([a-z0-9_]{1,120})")
_ENDINGS = ("_bucket", "_count", "_sum", "_total")
_FAMILIES = {"cluster": "cluster.outbound|8000||host;", "http": "http.outbound_0.0.0.0_443;"}
_MAX_DOTS = 2


def metered_once(mesh: Mesh) -> Iterator[Finding]:
    """Pods whose sidecars decide get requests that nobody has decided about."""
    places = our_places(mesh)
    sidecars = [one for one in places if "SIDECAR_INBOUND" in one.contexts]
    gateways = [one for one in places if "GATEWAY" in one.contexts]
    told = set()
    for route in routes(mesh):
        for one in route.destinations:
            service = mesh.services.get(one.host)
            decided = service is not None and any(
                place.namespace == service.manifest.namespace
                and (place.targets or _are_the_same(mesh, place.labels, service.selector))
                for place in sidecars
            )
            key = (route.manifest.title, one.host, one.is_mirror)
            if decided and key not in told and (one.is_mirror or (gateways and route.models)):
                told.add(key)
                source = "mirrored" if one.is_mirror else "decided at the gateway"
                what = (
                    f"these requests are {source}, and the sidecars of {one.host} meter them again"
                )
                write = (
                    "the component gateway or the component sidecar, and no mirror to metered pods"
                )
                yield found(Rule.METERED_TWICE, route.manifest, one.path, what, write)


def scalers(mesh: Mesh) -> Iterator[Finding]:
    """Two scalers of one workload undo each other's work."""
    by_target: dict[tuple[str, str, str], Manifest] = {}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for one in mesh.kind(kind):
            target = mapping(one.spec.get("scaleTargetRef"))
            key = (
                one.namespace,
                text(target.get("kind")) or "Deployment",
                text(target.get("name")),
            )
            first = by_target.setdefault(key, one)
            if first is not one:
                what = f"{first.title} scales {key[1]} {key[2]} already"
                path: KeyPath = ("spec", "scaleTargetRef")
                yield found(Rule.SCALERS_SEVERAL, one, path, what, "one of them")


def statistics(mesh: Mesh) -> Iterator[Finding]:
    """Istio's proxies have only the statistics that are asked for."""
    if mesh.config is None:
        return
    matcher = mapping(mapping(mesh.config.value.get("defaultConfig")).get("proxyStatsMatcher"))
    for one in mesh.kind("PrometheusRule"):
        for path, expression in _expressions(one):
            for name in dict.fromkeys(_METRIC.findall(expression)):
                if not any(_is_included(stat, matcher) for stat in _stats(name)):
                    what = f"no proxy has the statistic envoy_{name}: the alert never fires"
                    write = f".*{_middle(name)}.* among inclusionRegexps of proxyStatsMatcher"
                    yield found(Rule.STATS_EXCLUDED, one, path, what, write)


def _are_the_same(mesh: Mesh, chosen: Mapping[str, object], selector: Mapping[str, object]) -> bool:
    return bool(selector) and any(
        is_selected(chosen, one.labels) and is_selected(selector, one.labels) for one in mesh.pods
    )


def _expressions(one: Manifest) -> Iterator[tuple[KeyPath, str]]:
    for at, group in enumerate(items(one.spec.get("groups"))):
        for number, rule in enumerate(items(mapping(group).get("rules"))):
            path: KeyPath = ("spec", "groups", at, "rules", number, "expr")
            yield path, text(mapping(rule).get("expr"))


def _stats(name: str) -> Iterator[str]:
    """What the statistic may be called in Envoy, of whose dots Prometheus has made underscores."""
    for ending in ("", *(one for one in _ENDINGS if name.endswith(one))):
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


def _is_included(stat: str, matcher: Mapping[str, object]) -> bool:
    if stat.startswith(ALWAYS_THERE) or stat.replace(".", "_").startswith("cluster_manager"):
        return True
    prefixes = tuple(map(text, items(matcher.get("inclusionPrefixes"))))
    suffixes = tuple(map(text, items(matcher.get("inclusionSuffixes"))))
    patterns = map(text, items(matcher.get("inclusionRegexps")))
    by_end = stat.startswith(prefixes) or stat.endswith(suffixes)
    return by_end or any(_matches(pattern, stat) for pattern in patterns)


def _matches(pattern: str, stat: str) -> bool:
    try:
        return bool(pattern) and re.fullmatch(pattern, stat) is not None
    except re.error:
        return False


def _middle(name: str) -> str:
    return name.partition("_")[2] or name
