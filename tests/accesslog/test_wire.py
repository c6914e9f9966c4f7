"""Envoy's bytes become plain entries; no client's bytes spoil another client's entry."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    Metadata,
    RequestMethod,
    SocketAddress,
)
from envoy_data_plane.envoy.data.accesslog.v3 import (
    AccessLogCommon,
    HttpAccessLogEntry,
    HttpRequestProperties,
    HttpResponseProperties,
)
from envoy_data_plane.envoy.data.accesslog.v3 import (
    ResponseFlags as EnvoyFlags,
)
from envoy_data_plane.envoy.service.accesslog.v3 import (
    StreamAccessLogsMessage as EnvoyMessage,
)
from envoy_data_plane.envoy.service.accesslog.v3 import (
    StreamAccessLogsMessageHttpAccessLogEntries as EnvoyEntries,
)
from envoy_data_plane.google.protobuf import Struct as EnvoyStruct
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from accesslog.meter import meter
from accesslog.types import LogEntry
from accesslog.wire import FLAG_NAMES
from headgate._gen.accesslog_pb2 import HTTPAccessLogEntry, ResponseFlags, StreamAccessLogsMessage
from headgate.core.contract import Namespace
from tests.accesslog.entries import ADMISSION, decode, entry, message, prices_of, wire_entry


def decoded(wire: HTTPAccessLogEntry) -> LogEntry:
    built = StreamAccessLogsMessage()
    built.http_logs.log_entry.append(wire)
    (only,) = decode(built.SerializeToString())
    return only


def test_every_field_that_is_read_comes_through() -> None:
    assert decode(message(entry(), entry(request_id="q-2"))) == [
        entry(),
        entry(request_id="q-2"),
    ]


def test_an_empty_entry_has_nothing() -> None:
    assert decoded(HTTPAccessLogEntry()) == LogEntry()


def test_a_pod_behind_a_tunnel_has_its_own_address() -> None:
    """Envoy's address of it is `envoy://connect_originate/10.0.0.1:8000`."""
    tunnel = EnvoyInternalAddress(
        server_listener_name="connect_originate", endpoint_id="10.0.0.1:8000"
    )
    common = AccessLogCommon(upstream_remote_address=Address(envoy_internal_address=tunnel))

    sent = bytes(HttpAccessLogEntry(common_properties=common))

    assert decoded(HTTPAccessLogEntry.FromString(sent)) == LogEntry(upstream_host="10.0.0.1:8000")


def envoys_common() -> AccessLogCommon:
    return AccessLogCommon(
        downstream_remote_address=Address(
            socket_address=SocketAddress(address="198.51.100.4", port_value=443)
        ),
        start_time=datetime(2025, 11, 21, 12, 3, 11, 500_000, UTC),
        duration=timedelta(milliseconds=1500),
        response_flags=EnvoyFlags(downstream_connection_termination=True),
        metadata=Metadata(
            filter_metadata={Namespace.ADMISSION: EnvoyStruct.from_dict(dict(ADMISSION))}
        ),
        stream_id="not read",
    )


def test_a_message_that_envoy_encodes_is_read() -> None:
    request = HttpRequestProperties(
        request_method=RequestMethod.POST,
        path="/v1/messages?beta=true",
        original_path="/forged",
        request_id="q-9",
        request_body_bytes=77,
    )
    response = HttpResponseProperties(response_code=200, response_code_details="via_upstream")
    sent = EnvoyMessage(
        http_logs=EnvoyEntries(
            log_entry=[
                HttpAccessLogEntry(
                    common_properties=envoys_common(), request=request, response=response
                )
            ]
        )
    )
    assert decode(bytes(sent)) == [
        LogEntry(
            start_ns=1_763_726_591_500_000_000,
            duration_s=1.5,
            request_id="q-9",
            ip="198.51.100.4",
            method="POST",
            path="/v1/messages?beta=true",
            status=200,
            flags=("DC",),
            details="via_upstream",
            request_bytes=77,
            admission=ADMISSION,
        )
    ]


def test_every_flag_of_envoy_has_its_short_name() -> None:
    assert set(FLAG_NAMES) == set(ResponseFlags.DESCRIPTOR.fields_by_name)
    assert len(set(FLAG_NAMES.values())) == len(FLAG_NAMES)


@pytest.mark.parametrize("field", sorted(FLAG_NAMES.keys() - {"unauthorized_details"}))
def test_a_flag_has_its_short_name(field: str) -> None:
    assert decoded(wire_entry(entry(), flags=(field,))).flags == (FLAG_NAMES[field],)


def test_a_denial_by_ext_authz_has_the_flag_uaex() -> None:
    wire = HTTPAccessLogEntry()
    wire.common_properties.response_flags.unauthorized_details.reason = (
        ResponseFlags.Unauthorized.EXTERNAL_SERVICE
    )
    assert decoded(wire).flags == ("UAEX",)


def test_a_stream_id_that_is_no_utf8_spoils_nothing() -> None:
    """Envoy copies the client's x-request-id into AccessLogCommon.stream_id (26) unchecked."""
    common = entry()
    stream_id = b"\xd2\x01\x02a\xff"
    raw = wire_entry(common)
    raw.common_properties.MergeFromString(stream_id)
    assert stream_id in raw.SerializeToString()
    assert decoded(raw) == common


def test_an_unknown_method_is_no_method() -> None:
    wire = wire_entry(entry())
    wire.request.request_method = 99  # type: ignore[assignment]
    assert decoded(wire).method == ""


def test_metadata_that_is_not_a_string_is_ignored() -> None:
    wire = wire_entry(entry(admission={}, usage={}))
    struct = Struct()
    struct.update({"reservation": 7, "tenant": None, "user": ["alice"], "key": {"a": "b"}})
    wire.common_properties.metadata.filter_metadata[Namespace.ADMISSION].CopyFrom(struct)
    assert decoded(wire).admission == {}


def test_tcp_logs_hold_no_requests() -> None:
    assert decode(b"\x1a\x00") == []


def test_bytes_that_are_no_message_are_said_so() -> None:
    with pytest.raises(ValueError, match="not an access log message"):
        decode(b"\x12\xff")


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        entries = decode(data)
    except ValueError:
        return
    assert all(isinstance(read, LogEntry) for read in entries)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*ADMISSION, "status", "prompt", "completion", "first_event_ms", "stream"])


@given(st.dictionaries(st.sampled_from(list(Namespace)), st.dictionaries(NAMES, JSON)))
def test_any_metadata_gives_a_record(metadata: dict[Namespace, dict[str, Any]]) -> None:
    wire = wire_entry(entry(caller={}, request={}, admission={}, usage={}))
    for namespace, values in metadata.items():
        struct = Struct()
        struct.update(values)
        wire.common_properties.metadata.filter_metadata[namespace].CopyFrom(struct)
    assert meter(decoded(wire), prices_of) is not None
