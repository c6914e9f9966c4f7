"""The messages that each hook gets for one request through the real Envoy, and when."""

import asyncio

import pytest

from headgate._gen import auth_pb2, ext_proc_pb2
from headgate.core.contract import (
    OP_RESERVE,
    OP_SETTLE,
    RECORD_NO,
    CallerKey,
    Header,
    Namespace,
)
from tests.envoy_process import CHAT, Rig
from tests.fake_hooks import MODEL, admit, deny, entries, immediate, route, set_header
from tests.fake_upstream import Received, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}
USAGE = b'{"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}'


def headers_of(message: ext_proc_pb2.ProcessingRequest) -> dict[str, bytes]:
    pairs = message.request_headers.headers.headers
    return {header.key: header.raw_value for header in pairs}


async def test_one_request_costs_a_fixed_number_of_messages(rig: Rig) -> None:
    assert (await rig.post()).status_code == 200
    await rig.logged()
    services = rig.services
    assert len(services.checks) == 1
    assert [len(stream) for stream in services.streams] == [1]
    calls = [
        [entries(descriptor)["op"] for descriptor in call.descriptors] for call in services.limits
    ]
    assert calls == [[OP_RESERVE], [OP_SETTLE]]


async def test_streamed_chunks_cost_no_message(rig: Rig) -> None:
    async def events(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(200):
            writer.write(b"a\r\ndata: {}\n\n\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    rig.upstream.answer = events
    assert len((await rig.post()).content) == 200 * 10
    await rig.logged()
    assert len(rig.services.checks) == 1
    assert [len(stream) for stream in rig.services.streams] == [1]
    assert len(rig.services.limits) == 2


async def test_ext_authz_sees_path_method_and_credentials_only(rig: Rig) -> None:
    await rig.post(path=CHAT + "?a=1", authorization="Bearer k", **{"x-api-key": "k2", "x-a": "b"})
    http = rig.services.checks[0].attributes.request.http
    assert (http.method, http.path) == ("POST", CHAT + "?a=1")
    seen = {header.key: header.raw_value for header in http.header_map.headers}
    assert len(seen.pop("x-request-id")) == 36
    assert seen == {"authorization": b"Bearer k", "x-api-key": b"k2"}
    assert not http.headers
    source = rig.services.checks[0].attributes.source.address.socket_address
    assert source.address == "127.0.0.1"


async def test_a_forged_forwarding_header_does_not_change_the_address(rig: Rig) -> None:
    """The address is the connection's; otherwise a client could choose whose failures count."""
    forged = {"x-forwarded-for": "198.51.100.7", "forwarded": "for=198.51.100.7"}
    await rig.post(**forged, **{"x-real-ip": "198.51.100.7", "true-client-ip": "198.51.100.7"})
    source = rig.services.checks[0].attributes.source.address.socket_address
    assert source.address == "127.0.0.1"
    logged = (await rig.logged()).common_properties.downstream_remote_address.socket_address
    assert logged.address == "127.0.0.1"


async def test_a_refusal_that_wants_no_record_is_not_logged_and_others_are(rig: Rig) -> None:
    def unrecorded(request: auth_pb2.CheckRequest) -> auth_pb2.CheckResponse:
        answer = deny(429, "{}")(request)
        answer.dynamic_metadata.update({CallerKey.RECORD: RECORD_NO})
        return answer

    rig.services.check = unrecorded
    assert (await rig.post()).status_code == 429
    rig.services.check = deny(401, "{}")
    assert (await rig.post()).status_code == 401
    rig.services.check = admit
    assert (await rig.post()).status_code == 200
    await rig.services.until(lambda: len(rig.services.logs) >= 2)
    codes = sorted(entry.response.response_code.value for entry in rig.services.logs)
    assert codes == [200, 401]


async def test_a_header_sent_twice_reaches_ext_authz_twice_or_joined(rig: Rig) -> None:
    await rig.raw(
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
        b"authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n"
    )
    headers = rig.services.checks[0].attributes.request.http.header_map.headers
    keys = [header.raw_value for header in headers if header.key == "authorization"]
    assert b",".join(keys) == b"Bearer a,Bearer b"


async def test_ext_proc_sees_five_headers_and_two_namespaces(rig: Rig) -> None:
    await rig.post(b'{"model": "tiny"}', authorization="Bearer k", **{"x-other": "x"})
    message = rig.services.streams[0][0]
    headers = headers_of(message)
    assert len(headers.pop("x-request-id")) == 36
    assert headers == {
        ":path": CHAT.encode(),
        ":method": b"POST",
        "content-length": b"17",
        "content-type": b"application/json",
    }
    assert set(message.metadata_context.filter_metadata) == {Namespace.CALLER, Namespace.REQUEST}
    caller = message.metadata_context.filter_metadata[Namespace.CALLER].fields
    assert {key: caller[key].string_value for key in ("tenant", "user", "key")} == {
        "tenant": "acme",
        "user": "alice",
        "key": "k1",
    }


async def test_a_big_prompt_costs_ext_proc_no_more_bytes(rig: Rig) -> None:
    await rig.post(b'{"model":"m","x":"' + b"a" * 1_000 + b'"}')
    await rig.post(b'{"model":"m","x":"' + b"a" * 1_000_000 + b'"}')
    small, big = (stream[0].ByteSize() for stream in rig.services.streams)
    assert big <= small + 20


@pytest.mark.parametrize(
    "name",
    [*Header, "X-Headgate-Tenant", "x-headgate-anything", "x-envoy-retry-on",
     "x-envoy-upstream-rq-timeout-ms", "x-envoy-original-path"],
)  # fmt: skip
async def test_a_client_cannot_forge_headers(rig: Rig, name: str) -> None:
    await rig.post(**{name: "forged"})
    assert "forged" not in rig.upstream.received[0].headers.values()
    assert rig.upstream.received[0].headers[Header.BASE] == MODEL


async def test_the_request_id_is_envoy_s_own_and_the_client_learns_it(rig: Rig) -> None:
    answer = await rig.post(**{"x-request-id": "mine"})
    request_id = answer.headers["x-request-id"]
    assert request_id != "mine"
    assert rig.upstream.received[0].headers["x-request-id"] == request_id
    assert (await rig.logged()).request.request_id == request_id


async def test_the_credential_ends_at_the_door(rig: Rig) -> None:
    await rig.post(authorization="Bearer k")
    assert "authorization" not in rig.upstream.received[0].headers


async def test_answers_do_not_say_who_serves_them(rig: Rig) -> None:
    answer = await rig.post()
    assert answer.headers["server"] == "headgate"
    assert not [name for name in answer.headers if name.startswith("x-envoy")]


async def test_paths_are_normalised_before_anybody_reads_them(rig: Rig) -> None:
    await rig.raw(
        b"GET /v1/x/..//models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    assert rig.services.checks[0].attributes.request.http.path == "/v1/models"


async def test_the_access_log_carries_every_namespace(rig: Rig) -> None:
    rig.upstream.answer = reply(200, USAGE)
    await rig.post()
    entry = await rig.logged()
    metadata = entry.common_properties.metadata.filter_metadata
    assert set(Namespace) <= set(metadata)
    assert entry.request.path == CHAT
    assert entry.response.response_code.value == 200
    assert entry.response.response_body_bytes == len(USAGE)
    assert entry.common_properties.downstream_remote_address.socket_address.address == "127.0.0.1"


async def test_a_rewrite_costs_one_message_more_and_brings_its_length(rig: Rig) -> None:
    rig.services.process = rename
    answer = await rig.post(b'{"model":"tiny"}')
    assert answer.status_code == 200
    assert [len(stream) for stream in rig.services.streams] == [2]
    assert rig.upstream.received[0].body == b'{"model":"lora-a"}'
    assert rig.upstream.received[0].headers["content-length"] == "18"


async def test_a_large_body_is_rewritten_too(rig: Rig) -> None:
    rig.services.process = rename
    body = b'{"model":"tiny","x":"' + b"a" * 3_000_000 + b'"}'
    assert (await rig.post(body)).status_code == 200
    assert len(rig.upstream.received[0].body) == len(body) + 2


def rename(message: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
    """ext_proc asks for the body and puts another model into it."""
    if message.HasField("request_headers"):
        response = route()(message)
        mode = ext_proc_pb2.ProcessingMode
        response.mode_override.request_header_mode = mode.SEND
        response.mode_override.response_header_mode = mode.SKIP
        response.mode_override.request_body_mode = mode.BUFFERED
        response.mode_override.request_trailer_mode = mode.SKIP
        response.mode_override.response_trailer_mode = mode.SKIP
        return response
    body = message.request_body.body.replace(b"tiny", b"lora-a")
    response = ext_proc_pb2.ProcessingResponse()
    common = response.request_body.response
    common.body_mutation.body = body
    common.header_mutation.set_headers.append(set_header("content-length", str(len(body))))
    return response


async def test_ext_proc_may_answer_itself(rig: Rig) -> None:
    rig.services.process = immediate(200, b'{"data": []}')
    answer = await rig.client.get("/v1/models")
    assert (answer.status_code, answer.content) == (200, b'{"data": []}')
    assert answer.headers["content-type"] == "application/json"
    assert rig.services.limits == []


async def test_ext_proc_cannot_touch_the_host(rig: Rig) -> None:
    rig.services.process = route(headers={"host": "elsewhere"})
    assert (await rig.post()).status_code == 503
    assert rig.upstream.received == []
