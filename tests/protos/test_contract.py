"""Our wire subset is Envoy's: names, numbers, types, labels and enum values of every field."""

import re
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from protos.generate import ROOT, stale
from tests.protos.envoy import (
    ENVOY_NAMES,
    PACKAGE,
    enums,
    envoy_class,
    envoy_name,
    messages,
)

TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}
NUMBER_FOR_ENUM = {"HttpStatus.code"}
"""Enums of Envoy that we hold as int32, which is the same on the wire."""

FIELDS = {
    f"{name}.{field.name}": field
    for name, message in messages().items()
    for field in message.fields
}


def envoy_metadata(field: FieldDescriptor) -> tuple[Any, Any]:
    """The class of Envoy's message that has the field, and the field's metadata there."""
    assert field.containing_type is not None
    owner = envoy_class(ENVOY_NAMES[field.containing_type.full_name.removeprefix(PACKAGE)])
    return owner, owner._betterproto.meta_by_field_name[field.name]


def envoy_type_name(full_name: str) -> str:
    """The full name that a message type of ours has at Envoy (google.protobuf's is its own)."""
    return (
        ENVOY_NAMES[full_name.removeprefix(PACKAGE)] if full_name.startswith(PACKAGE) else full_name
    )


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def test_every_message_of_ours_is_in_the_table_and_no_other() -> None:
    assert set(messages()) == set(ENVOY_NAMES)


def test_the_comments_in_the_sources_name_the_same_messages() -> None:
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "protos").glob("*.proto")))
    named = re.findall(r"// ((?:envoy|google)\.[\w.]+)[^\n]*\n\s*message (\w+)", sources)
    assert sorted(named) == sorted(
        (envoy, ours.rpartition(".")[2]) for ours, envoy in ENVOY_NAMES.items()
    )


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_envoys_name_number_type_and_label(name: str) -> None:
    field = FIELDS[name]
    _, theirs = envoy_metadata(field)
    assert theirs.number == field.number
    assert theirs.repeated == (field.is_repeated and not is_map(field))
    in_oneof = field.containing_oneof
    assert theirs.group == (None if in_oneof is None else in_oneof.name)
    scalar_presence = field.has_presence and field.message_type is None and in_oneof is None
    assert scalar_presence is False, "our subset has no `optional` scalars"
    if field.message_type is None and in_oneof is None:
        assert theirs.optional is False
    if is_map(field):
        assert theirs.proto_type == "map"
    elif name in NUMBER_FOR_ENUM:
        assert (TYPES[field.type], theirs.proto_type) == ("int32", "enum")
    else:
        assert theirs.proto_type == TYPES[field.type]


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if is_map(field)])
def test_a_map_has_envoys_key_and_value_types(name: str) -> None:
    field = FIELDS[name]
    owner, theirs = envoy_metadata(field)
    entry = field.message_type
    assert entry is not None
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    assert [meta.proto_type for meta in theirs.map_meta] == [TYPES[key.type], TYPES[value.type]]
    if value.message_type is not None:
        value_class = owner._betterproto.cls_by_field[f"{field.name}.value"]
        assert envoy_name(value_class) == envoy_type_name(value.message_type.full_name)


MESSAGE_FIELDS = [
    name for name, field in FIELDS.items() if field.message_type is not None and not is_map(field)
]


@pytest.mark.parametrize("name", MESSAGE_FIELDS)
def test_a_message_field_holds_the_message_that_envoys_holds(name: str) -> None:
    field = FIELDS[name]
    owner, theirs = envoy_metadata(field)
    held = theirs.unwrap() if theirs.unwrap else owner._betterproto.cls_by_field[field.name]
    assert field.message_type is not None
    assert envoy_name(held) == envoy_type_name(field.message_type.full_name)


ENUM_FIELDS = {
    name: field.enum_type for name, field in FIELDS.items() if field.enum_type is not None
}


@pytest.mark.parametrize(("name", "enum"), ENUM_FIELDS.items(), ids=ENUM_FIELDS.keys())
def test_an_enum_has_envoys_names_and_numbers(name: str, enum: EnumDescriptor) -> None:
    """Envoy's may hold more: what we do not know arrives as its number."""
    owner, _ = envoy_metadata(FIELDS[name])
    theirs = owner._betterproto.cls_by_field[FIELDS[name].name]
    renamed = theirs.betterproto_value_to_renamed_proto_names()
    known = {renamed.get(int(value), value.name): int(value) for value in theirs}
    assert {value.name: value.number for value in enum.values}.items() <= known.items()


def test_every_enum_of_ours_is_compared() -> None:
    assert {enum.full_name for enum in ENUM_FIELDS.values()} == set(enums())


def test_the_generated_code_is_what_the_sources_give() -> None:
    assert stale() == []
