"""Does Istio know each field?"""

from collections.abc import Iterator, Mapping

from headgate.core.durations import go_seconds
from headgate.istio_check.fields import DURATION, NAME, Fields, known_fields
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest
from headgate.istio_check.mesh import Mesh
from headgate.policy.problems import hint

_SHOWN_FIELDS = 8
_SHOWN_CHARACTERS = 60
_SHORTEST_S = 0.001
_CHECKED_ELSEWHERE = frozenset({"applyTo", "filterClass"})
"""Fields of an EnvoyFilter whose words rules/envoy.py and rules/patches.py check."""


def fields(mesh: Mesh) -> Iterator[Finding]:
    """Istio drops a misspelt field, and the field that was meant keeps its default."""
    for manifest in mesh.manifests:
        known = known_fields(manifest.group, manifest.kind)
        if known is not None:
            yield from _unknown(manifest, known, manifest.value.get("spec"), ("spec",))


def _unknown(manifest: Manifest, known: Fields, value: object, path: KeyPath) -> Iterator[Finding]:
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from _unknown(manifest, known, item, (*path, at))
    elif known == DURATION:
        yield from _bad_duration(manifest, value, path)
    elif isinstance(known, frozenset):
        if path[-1] not in _CHECKED_ELSEWHERE:
            yield from _unknown_word(manifest, known, value, path)
    elif isinstance(known, Mapping) and isinstance(value, dict):
        for key, inner in value.items():
            if NAME in known or key in known:
                below = known.get(NAME, known.get(key))
                yield from _unknown(manifest, below, inner, (*path, key))
            else:
                message = f"Istio has no field {str(key)[:_SHOWN_CHARACTERS]} here"
                message += hint(str(key), known)
                more = ", ..." if len(known) > _SHOWN_FIELDS else ""
                remedy = f"one of: {', '.join(sorted(known)[:_SHOWN_FIELDS])}{more}"
                yield finding_at(MeshRule.FIELD_UNKNOWN, manifest, (*path, key), message, remedy)


def _bad_duration(manifest: Manifest, value: object, path: KeyPath) -> Iterator[Finding]:
    """istiod cannot read an object with a duration that lacks its unit, and drops it all."""
    seconds = go_seconds(value)
    shown = str(value)[:_SHOWN_CHARACTERS]
    if value is None:
        return
    if seconds is None:
        message = f"{shown} is no duration, so istiod drops the whole object"
        remedy = (
            f"{shown}s" if go_seconds(f"{shown}s") else "a number and its unit, as 30s or 1m30s"
        )
    elif seconds < _SHORTEST_S:
        message = f"{shown} is under 1ms, so Kubernetes refuses the object, or else Envoy does"
        remedy = "at least 1ms, or leave the field out"
    else:
        return
    yield finding_at(MeshRule.DURATION, manifest, path, message, remedy)


def _unknown_word(
    manifest: Manifest, known: frozenset[str], value: object, path: KeyPath
) -> Iterator[Finding]:
    if value is not None and not (isinstance(value, str) and value in known):
        shown = str(value)[:_SHOWN_CHARACTERS]
        message = f"{shown} is not a value of this field" + hint(str(value), known)
        remedy = f"one of: {', '.join(sorted(known))}"
        yield finding_at(MeshRule.FIELD_UNKNOWN, manifest, path, message, remedy)
