"""Do the fields of outlier detection do what they say?

Source: istiod 1.31, `applyOutlierDetection` and `validateOutlierDetection`. The rule `duration`
has the two durations.
"""

from collections.abc import Iterator, Mapping

from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, whole
from headgate.istio_check.mesh import Mesh

_PERCENTS = ("maxEjectionPercent", "minHealthPercent")
_COUNTS = (
    "consecutive5xxErrors",
    "consecutiveGatewayErrors",
    "consecutiveLocalOriginFailures",
    *_PERCENTS,
)
_DROPPED = {
    "consecutiveErrors": "consecutive5xxErrors",
    "outlierDetectionHttpErrorCodes": "consecutive5xxErrors",
}
"""Fields that the CRD has and istiod does not read, and the field to write instead."""
_LARGEST = 2**32 - 1


def outliers(mesh: Mesh) -> Iterator[Finding]:
    """Each field has the effect that its name promises."""
    for rule in mesh.kind("DestinationRule"):
        yield from _of_policy(rule, ("spec", "trafficPolicy"), rule.spec.get("trafficPolicy"))
        for at, subset in enumerate(items(rule.spec.get("subsets"))):
            path: KeyPath = ("spec", "subsets", at, "trafficPolicy")
            yield from _of_policy(rule, path, mapping(subset).get("trafficPolicy"))
    if mesh.config is not None:
        path = ("defaultTrafficPolicy",)
        yield from _of_policy(mesh.config, path, mesh.config.value.get("defaultTrafficPolicy"))


def _of_policy(manifest: Manifest, path: KeyPath, policy: object) -> Iterator[Finding]:
    settings = mapping(policy)
    ports = [
        ((*path, "portLevelSettings", at), mapping(port))
        for at, port in enumerate(items(settings.get("portLevelSettings")))
    ]
    for place, inner in ((path, settings), *ports):
        detection = mapping(inner.get("outlierDetection"))
        for key, message, remedy in _faults(detection):
            full_path: KeyPath = (*place, "outlierDetection", key)
            yield finding_at(MeshRule.OUTLIER_FIELD, manifest, full_path, message, remedy)


def _faults(detection: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """The field, message and remedy of each fault."""
    for key, instead in _DROPPED.items():
        if key in detection:
            message, remedy = f"istiod drops {key}", "remove it"
            if instead not in detection:
                message += ": Envoy's default of 5 answers with 5xx acts"
                number = whole(detection[key])
                remedy = f"{instead}: {3 if number is None else number}"
            yield key, message, remedy
    for key in _COUNTS:
        value = detection.get(key)
        number = whole(value)
        largest = 100 if key in _PERCENTS else _LARGEST
        if value is not None and (number is None or not 0 <= number <= largest):
            message = f"{str(value)[:60]} is no whole number from 0 to {largest}: it is refused"
            yield key, message, f"{key}: a number without quotes"
    yield from _without_effect(detection)


def _without_effect(detection: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Combinations that switch a detector off, or fail to switch it off."""
    is_split = detection.get("splitExternalLocalOriginErrors") is True
    local = whole(detection.get("consecutiveLocalOriginFailures"))
    gateway = whole(detection.get("consecutiveGatewayErrors")) or 0
    if detection.get("consecutive5xxErrors") == 0 and gateway == 0:
        message = "0 switches this detector off, so no pod is ejected for its answers"
        yield "consecutive5xxErrors", message, "consecutive5xxErrors: 3"
    if detection.get("maxEjectionPercent") == 0:
        message = "istiod drops the 0: Envoy's default of 10 percent acts"
        yield "maxEjectionPercent", message, "a number from 1 to 100"
    if local and not is_split:
        message = "istiod refuses the object without splitExternalLocalOriginErrors: true"
        yield "consecutiveLocalOriginFailures", message, "splitExternalLocalOriginErrors: true"
    if local == 0 and is_split:
        message = "istiod drops the 0: Envoy's default of 5 failures acts"
        remedy = "a number from 1, or no splitExternalLocalOriginErrors"
        yield "consecutiveLocalOriginFailures", message, remedy
