"""The fields of Istio's kinds by their names in YAML, as Istio's CRDs have them.

`make istio-fields` generates `fields.json`, which holds the fields of each kind's `spec`:

- a mapping for an object, or for the objects of a list; the key `NAME` stands for any key
- a list of words for a field that takes only these words
- `duration` for a duration of at least one millisecond
- null for a value that is not checked
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TypeAlias

Fields: TypeAlias = "Mapping[str, Fields] | frozenset[str] | str | None"

NAME = "*"
DURATION = "duration"


def known_fields(group: str, kind: str) -> Fields:
    """The fields of a kind's `spec`. None if the kind is not one of Istio's."""
    return _kinds().get(f"{group}/{kind}")


@cache
def _kinds() -> Mapping[str, Fields]:
    content = (files(__package__) / "fields.json").read_text(encoding="utf-8")
    return {kind: _frozen(inner) for kind, inner in json.loads(content)["kinds"].items()}


def _frozen(value: object) -> Fields:
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return frozenset(value)
    return DURATION if value == DURATION else None
