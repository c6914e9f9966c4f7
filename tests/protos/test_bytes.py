"""Bytes that one side writes are read whole by the other, in both directions."""

from collections.abc import Iterator
from typing import Any

import betterproto2
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from tests.protos.envoy import ENVOY_NAMES, envoy_class, messages

SAMPLES: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "t\u00e9xt \U0001f600",
    FieldDescriptor.TYPE_BYTES: b"\x00\xff raw",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_INT32: 429,
    FieldDescriptor.TYPE_INT64: 2**53,
    FieldDescriptor.TYPE_UINT32: 2**32 - 1,
    FieldDescriptor.TYPE_UINT64: 2**53,
    FieldDescriptor.TYPE_ENUM: 1,
}
STRUCT = Struct()
STRUCT.update({"text": "a", "yes": True, "list": [1.5, None], "inner": {"deep": "b"}})
WELL_KNOWN: dict[str, Message] = {
    "google.protobuf.Struct": STRUCT,
    "google.protobuf.Duration": Duration(seconds=61, nanos=250_000),
    "google.protobuf.Timestamp": Timestamp(seconds=1_763_726_591, nanos=123_000),
    "google.protobuf.UInt32Value": UInt32Value(value=429),
    "google.protobuf.UInt64Value": UInt64Value(value=2**40),
}


def filled(descriptor: Descriptor, alternative: int) -> Message:
    """A message with every field set; of each oneof its `alternative`th member."""
    if descriptor.full_name in WELL_KNOWN:
        return WELL_KNOWN[descriptor.full_name]
    message: Message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        members = field.containing_oneof.fields if field.containing_oneof else [field]
        if members[alternative % len(members)] is field:
            fill(message, field, alternative)
    return message


def fill(message: Message, field: FieldDescriptor, alternative: int) -> None:
    """Sets one field, to two values where it is repeated or a map."""
    held = getattr(message, field.name)
    if field.message_type is None:
        if field.is_repeated:
            held.extend([SAMPLES[field.type]] * 2)
        else:
            setattr(message, field.name, SAMPLES[field.type])
        return
    if field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        for key in ("a", "b"):
            if value.message_type is None:
                held[key] = SAMPLES[value.type]
            else:
                held[key].CopyFrom(filled(value.message_type, alternative))
    elif field.is_repeated:
        held.extend([filled(field.message_type, alternative)] * 2)
    else:
        held.CopyFrom(filled(field.message_type, alternative))


def unknown_fields(message: Any) -> Iterator[bytes]:
    """Every field number below `message` that Envoy's class did not know."""
    if message._unknown_fields:
        yield message._unknown_fields
    for name in message._betterproto.sorted_field_names:
        held = getattr(message, name)
        inner = held.values() if isinstance(held, dict) else held
        for value in inner if isinstance(held, list | dict) else [held]:
            if isinstance(value, betterproto2.Message):
                yield from unknown_fields(value)


@pytest.mark.parametrize("alternative", range(3))
@pytest.mark.parametrize("name", ENVOY_NAMES)
def test_envoy_reads_what_we_write_and_we_read_what_envoy_writes(
    name: str, alternative: int
) -> None:
    ours = filled(messages()[name], alternative)
    theirs = envoy_class(ENVOY_NAMES[name]).parse(ours.SerializeToString())
    assert list(unknown_fields(theirs)) == []
    assert type(ours).FromString(bytes(theirs)) == ours
