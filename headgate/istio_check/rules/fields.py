"""Does Istio know each field?"""

from collections.abc import Iterator, Mapping

from headgate.istio_check.fields import NAME, Fields, known_fields
from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath, Manifest
from headgate.istio_check.mesh import Mesh
from headgate.policy.problems import hint

_SHOWN_FIELDS = 8
_SHOWN_CHARACTERS = 60
_CHECKED_ELSEWHERE = frozenset({"applyTo", "filterClass"})
"""Fields of an EnvoyFilter whose words rules/envoy.py and rules/patches.py check."""


def fields(mesh: Mesh) -> Iterator[Finding]:
    """A misspelt field is none: what was meant by it has its default."""
    for one in mesh.manifests:
        known = known_fields(one.group, one.kind)
        if known is not None:
            yield from _unknown(one, known, one.value.get("spec"), ("spec",))


def _unknown(one: Manifest, known: Fields, value: object, path: KeyPath) -> Iterator[Finding]:
    if isinstance(value, list):
        for at, each in enumerate(value):
            yield from _unknown(one, known, each, (*path, at))
    elif isinstance(known, frozenset):
        if path[-1] not in _CHECKED_ELSEWHERE:
            yield from _unknown_word(one, known, value, path)
    elif isinstance(known, Mapping) and isinstance(value, dict):
        for key, inner in value.items():
            if NAME in known or key in known:
                below = known.get(NAME, known.get(key))
                yield from _unknown(one, below, inner, (*path, key))
            else:
                what = f"Istio has no field {str(key)[:_SHOWN_CHARACTERS]} here" + hint(
                    str(key), known
                )
                more = ", ..." if len(known) > _SHOWN_FIELDS else ""
                write = f"one of: {', '.join(sorted(known)[:_SHOWN_FIELDS])}{more}"
                yield found(Rule.FIELD_UNKNOWN, one, (*path, key), what, write)


def _unknown_word(
    one: Manifest, known: frozenset[str], value: object, path: KeyPath
) -> Iterator[Finding]:
    if value is not None and not (isinstance(value, str) and value in known):
        shown = str(value)[:_SHOWN_CHARACTERS]
        what = f"{shown} is no value of this field" + hint(str(value), known)
        yield found(Rule.FIELD_UNKNOWN, one, path, what, f"one of: {', '.join(sorted(known))}")
