"""Checks Envoy's messages in YAML as strictly as Envoy's own JSON reader.

Only durations may be as Go writes them: istiod reads a patch, and Envoy gets it in binary form.

istiod silently drops fields that it does not know; here each is a fault with its path.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TypeAlias

import betterproto2
from betterproto2.casing import safe_snake_case
from envoy_data_plane.google.protobuf import Any

from headgate.core.durations import go_seconds

FieldPath: TypeAlias = tuple[str | int, ...]

_TYPE_URL = re.compile(r"type\.googleapis\.com/((?:[a-z][a-z0-9_]*\.)+)([A-Za-z]\w*)")
_TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
_ENVOY_TYPES = "envoy."
"""Other types, such as Istio's own, are not in Envoy's API."""
_OLD = re.compile(r"\.v[12](alpha[0-9]*)?\.")
_CONTRIB = ".v3alpha."
"""Extensions outside Envoy's core; Istio's build has some of them."""
_PLAIN = "envoy_data_plane.google.protobuf"
_TEXTS = (betterproto2.TYPE_STRING, betterproto2.TYPE_BYTES)
_NUMBER = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Fault:
    """A field or value that Envoy would reject: its path, the problem, and the text to write."""

    path: FieldPath
    problem: str
    write: str


def faults(
    kind: type[betterproto2.Message], value: object, path: FieldPath = ()
) -> Iterator[Fault]:
    """Every field of `value` that the message does not have, or has with another type."""
    if kind is Any:
        yield from _any_faults(value, path)
    elif kind.__module__ == _PLAIN:
        yield from _plain_faults(kind, value, path)
    elif not isinstance(value, Mapping):
        yield Fault(path, f"{kind.__name__} is a mapping", "a mapping with its fields")
    else:
        yield from _message_faults(kind, value, path)


def message_type(type_url: str) -> type[betterproto2.Message] | None:
    """The message of a type URL; None if Envoy's API does not have it."""
    parts = _TYPE_URL.fullmatch(type_url)
    if parts is None:
        return None
    package, name = parts.group(1).rstrip("."), parts.group(2)
    try:
        module = import_module(f"envoy_data_plane.{package}")
    except ImportError:
        return None
    return next(
        (
            kind
            for kind in vars(module).values()
            if isinstance(kind, type)
            and issubclass(kind, betterproto2.Message)
            and kind.__name__.lower() == name.lower()
        ),
        None,
    )


def _message_faults(
    kind: type[betterproto2.Message], value: Mapping[str, object], path: FieldPath
) -> Iterator[Fault]:
    known = _fields(kind).meta_by_field_name
    groups: dict[str, str] = {}
    for key, inner in value.items():
        name = safe_snake_case(str(key))
        meta = known.get(name)
        if meta is None:
            close = get_close_matches(name, known, n=1)
            advice = close[0] if close else f"one of {', '.join(sorted(known)[:12])}"
            yield Fault((*path, key), f"{kind.__name__} has no {key}; istiod drops it", advice)
            continue
        if inner is None:
            continue
        if meta.group and groups.setdefault(meta.group, str(key)) != str(key):
            problem = f"{key} and {groups[meta.group]} exclude each other"
            yield Fault((*path, key), problem, "one of them")
        yield from _field_faults(kind, name, meta, inner, (*path, key))


def _field_faults(
    kind: type[betterproto2.Message],
    name: str,
    meta: betterproto2.FieldMetadata,
    value: object,
    path: FieldPath,
) -> Iterator[Fault]:
    if meta.map_meta is not None:
        if not isinstance(value, Mapping):
            yield Fault(path, "is a mapping of names to values", "a mapping")
            return
        each = _fields(kind).cls_by_field[f"{name}.value"]
        for key, inner in value.items():
            yield from _value_faults(each, meta.map_meta[1], inner, (*path, key))
    elif meta.repeated:
        if not isinstance(value, list):
            yield Fault(path, "is a list", "a list, each item after '- '")
            return
        for index, inner in enumerate(value):
            each = _fields(kind).cls_by_field[name]
            yield from _value_faults(each, meta, inner, (*path, index))
    else:
        yield from _value_faults(_fields(kind).cls_by_field[name], meta, value, path)


def _value_faults(
    kind: type, meta: betterproto2.FieldMetadata, value: object, path: FieldPath
) -> Iterator[Fault]:
    if meta.proto_type == betterproto2.TYPE_MESSAGE:
        yield from faults(meta.unwrap() if meta.unwrap else kind, value, path)
    elif meta.proto_type == betterproto2.TYPE_ENUM:
        yield from _enum_faults(kind, value, path)
    elif meta.proto_type == betterproto2.TYPE_BOOL:
        if not isinstance(value, bool):
            yield Fault(path, f"{value!r} is neither true nor false", "true or false, unquoted")
    elif meta.proto_type in _TEXTS:
        if not isinstance(value, str):
            yield Fault(path, f"{_shown(value)} is no text", "text in quotes")
    elif isinstance(value, bool) or not (isinstance(value, (int, float)) or _is_number(value)):
        yield Fault(path, f"{_shown(value)} is no number", "a number")


def _is_number(value: object) -> bool:
    """Whether it is a number. JSON writes 64-bit numbers as text; YAML decimals come as Decimal."""
    try:
        float(str(value))
    except ValueError:
        return False
    return not isinstance(value, (Mapping, list))


def _enum_faults(kind: type, value: object, path: FieldPath) -> Iterator[Fault]:
    """Accepts Envoy's own names, and the names that betterproto2 has shortened."""
    if isinstance(value, int) and not isinstance(value, bool):
        return
    names = [member.proto_name or member.name for member in kind]  # type: ignore[attr-defined]
    short = [member.name for member in kind]  # type: ignore[attr-defined]
    if value not in names and value not in short:
        close = get_close_matches(str(value), names, n=1)
        yield Fault(
            path, f"{_shown(value)} is not one of its values", (close or [", ".join(names[:8])])[0]
        )


def _plain_faults(
    kind: type[betterproto2.Message], value: object, path: FieldPath
) -> Iterator[Fault]:
    """Google's own types, which have special forms in JSON: durations, wrapped numbers, structs."""
    if kind.__name__ in ("Struct", "Value", "ListValue", "NullValue"):
        if kind.__name__ == "Struct" and not isinstance(value, Mapping):
            yield Fault(path, f"{_shown(value)} is no mapping", "a mapping")
        return
    if kind.__name__ == "Duration" and go_seconds(value) is None:
        yield Fault(path, f"{_shown(value)} is no duration", "seconds with an s, as in 0.5s")
    elif kind.__name__ == "BoolValue" and not isinstance(value, bool):
        yield Fault(path, f"{_shown(value)} is neither true nor false", "true or false, unquoted")
    elif kind.__name__ == "StringValue" and not isinstance(value, str):
        yield Fault(path, f"{_shown(value)} is no text", "text in quotes")
    elif kind.__name__.endswith(
        ("IntValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value")
    ):
        if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
            yield Fault(path, f"{_shown(value)} is no whole number", "a whole number")
    elif kind.__name__ == "Empty" and value != {}:
        yield Fault(path, "has no fields", "{}")


def _any_faults(value: object, path: FieldPath) -> Iterator[Fault]:
    if not isinstance(value, Mapping):
        yield Fault(path, "is a mapping with @type", "'@type': type.googleapis.com/...")
        return
    type_url = value.get("@type")
    rest = {key: inner for key, inner in value.items() if key != "@type"}
    if not isinstance(type_url, str):
        yield Fault(path, "lacks @type", "'@type': type.googleapis.com/...")
        return
    name = type_url.rpartition("/")[2]
    if name in _TYPED_STRUCTS:
        type_url, rest = str(value.get("type_url") or value.get("typeUrl")), {}
        inner = value.get("value")
        path = (*path, "value")
        rest = dict(inner) if isinstance(inner, Mapping) else {}
        name = type_url.rpartition("/")[2]
    if name.startswith(_ENVOY_TYPES) and _OLD.search(name):
        yield Fault(
            (*path, "@type"), f"{name} is of Envoy's API v2, which Istio no longer has", _v3(name)
        )
        return
    kind = message_type(type_url)
    if kind is not None:
        yield from faults(kind, rest, path)
    elif (name.startswith(_ENVOY_TYPES) and _CONTRIB not in name) or not type_url.startswith(
        "type.googleapis.com/"
    ):
        problem = f"{_shown(type_url)} is no type of Envoy's API"
        yield Fault((*path, "@type"), problem, "the type's URL as Envoy's documentation has it")


def _v3(old: str) -> str:
    """The type of the API v3 that replaces one of v2, where only the package has changed."""
    moved = re.sub(
        r"^envoy\.config\.filter\.(http|network)\.", r"envoy.extensions.filters.\1.", old
    )
    new = "type.googleapis.com/" + _OLD.sub(".v3.", moved)
    return new if message_type(new) else "the type of the API v3"


def _fields(kind: type[betterproto2.Message]) -> betterproto2.ProtoClassMetadata:
    metadata: betterproto2.ProtoClassMetadata = kind._betterproto  # type: ignore[arg-type]
    return metadata


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)[:120]
