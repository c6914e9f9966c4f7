"""Reads the `metadata` of a descriptor, which may hold any values."""

import re
from collections.abc import Mapping
from typing import Any

from headgate.policy.document import YamlList, YamlMapping
from headgate.rls_config.reader import FALSE, TRUE, Plain

_INT = re.compile(r"[-+]?(0b[01]+|0x[0-9a-fA-F]+|0o?[0-7]+|[1-9][0-9]*|0)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OCTAL = re.compile(r"([-+]?)0([0-7]+)")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def json_value(value: object) -> Any:
    """A value as JSON has it: unquoted text is a number, true or false where YAML 1.1 says so.

    Fields of `<<` rank below those of the mapping itself.
    """
    if isinstance(value, YamlMapping):
        return json_object(value)
    if isinstance(value, YamlList):
        return [json_value(item) for item in value]
    return _scalar(value) if isinstance(value, Plain) else value


def json_object(mapping: YamlMapping) -> dict[str, Any]:
    """The fields of a mapping as JSON has them; see `json_value`."""
    fields: dict[str, Any] = {}
    for key, item in mapping.items():
        if key != "<<":
            fields[key] = json_value(item)
    merged = mapping.get("<<")
    for other in merged if isinstance(merged, YamlList) else [merged]:
        if isinstance(other, Mapping):
            fields = {**json_object(other), **fields}  # type: ignore[arg-type]
    return fields


def _scalar(text: str) -> str | bool | float:
    if text.lower() in TRUE | FALSE:
        return text.lower() in TRUE
    digits = text.replace("_", "")
    if _INT.fullmatch(digits):
        octal = _OCTAL.fullmatch(digits)
        return float(int(digits, 0) if octal is None else int("".join(octal.groups()), 8))
    if _FLOAT.fullmatch(digits):
        return float(digits)
    special = _SPECIAL.fullmatch(text)
    return text if special is None else float(text.replace(".", "").lower())
