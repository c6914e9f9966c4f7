"""Durations as Go writes them, which istiod reads in every field."""

import re

_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"([-+]?)(0|(?:{_PART.pattern})+)")
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_LONGEST_S = 2**63 / 1e9
_MAX_CHARACTERS = 64


def go_seconds(value: object) -> float | None:
    """The seconds of a duration such as `1m30s`, `.25s` or `-1.5h`. None for anything else.

    As `time.ParseDuration` of Go: a number needs a unit; only `0` does without. This is
    how istiod reads its kinds, the mesh configuration and patches (golang/protobuf's `jsonpb`).
    Its grammar includes the durations of the Gateway API and of protobuf's JSON.
    """
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        return None
    whole = _WHOLE.fullmatch(value)
    if whole is None:
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    if seconds >= _LONGEST_S:
        return None
    return -seconds if whole[1] == "-" else seconds
