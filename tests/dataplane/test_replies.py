"""The replies if no model answers: Envoy's own in Headgate's form, or the hook's."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.dataplane.box import BODY_LIMIT_BYTES
from tests.envoy_process import CHAT, Rig, running_envoy
from tests.fake_hooks import broken, deny, immediate, route, too_many
from tests.fake_upstream import Received, reply
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

BAD_HTTP = json.loads((Path(__file__).parent / "cases/bad_http.json").read_text("utf-8"))
LIMIT_BYTES = BODY_LIMIT_BYTES
SHORT = timedelta(seconds=1)


def code_of(answer: httpx.Response) -> str:
    """`error.code` of an OpenAI error object; checks the shape, and the id where there is one."""
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert error["param"] is None
    assert error["request_id"] == answer.headers.get("x-request-id")
    return str(error["code"])


def body_of_size(size_bytes: int) -> bytes:
    start, end = b'{"model":"tiny","x":"', b'"}'
    return start + b"a" * (size_bytes - len(start) - len(end)) + end


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_denial_of_ext_authz_passes_as_it_is(rig: Rig, status: int) -> None:
    rig.services.check = deny(status, '{"error": "from the hook"}')
    answer = await rig.post()
    assert (answer.status_code, answer.json()) == (status, {"error": "from the hook"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 413, 429])
async def test_an_answer_of_ext_proc_passes_as_it_is(rig: Rig, status: int) -> None:
    rig.services.process = immediate(status)
    answer = await rig.post()
    assert (answer.status_code, answer.json()) == (status, {"error": "from the hook"})
    assert answer.headers["content-type"] == "application/json"


async def test_a_429_passes_as_it_is(rig: Rig) -> None:
    rig.services.limit = too_many
    answer = await rig.post()
    assert (answer.status_code, answer.json()) == (429, {"error": "over"})
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["content-type"] == "application/json"
    assert "x-envoy-ratelimited" not in answer.headers


@pytest.mark.parametrize("status", [400, 408, 413, 431, 500, 503, 504])
async def test_an_error_of_the_model_s_server_passes_as_it_is(rig: Rig, status: int) -> None:
    rig.upstream.answer = reply(status, b'{"error": "of vLLM"}')
    answer = await rig.post(**{"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"})
    assert (answer.status_code, answer.json()) == (status, {"error": "of vLLM"})
    assert len(rig.upstream.received) == 1


@pytest.mark.parametrize("hook", ["check", "process", "limit"])
async def test_a_hook_that_fails_closes_the_door(rig: Rig, hook: str) -> None:
    setattr(rig.services, hook, broken)
    answer = await rig.post()
    assert (answer.status_code, code_of(answer)) == (503, "service_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert rig.upstream.received == []


async def test_anthropic_clients_read_their_own_shape(rig: Rig) -> None:
    rig.services.limit = broken
    answer = await rig.post(path="/v1/messages?beta=true")
    assert answer.status_code == 503
    body = answer.json()
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_a_model_without_route_is_404(rig: Rig) -> None:
    rig.services.process = route(headers={"x-headgate-base": "other"})
    answer = await rig.post()
    assert (answer.status_code, code_of(answer)) == (404, "model_not_found")


async def test_a_body_of_the_limit_passes(rig: Rig) -> None:
    assert (await rig.post(body_of_size(LIMIT_BYTES))).status_code == 200
    assert len(rig.upstream.received[0].body) == LIMIT_BYTES


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
@pytest.mark.parametrize("size_bytes", [LIMIT_BYTES + 1, 40_000_000])
async def test_a_larger_body_is_413(rig: Rig, content_type: str, size_bytes: int) -> None:
    answer = await rig.post(body_of_size(size_bytes), **{"content-type": content_type})
    assert (answer.status_code, code_of(answer)) == (413, "request_too_large")
    assert rig.services.streams == []


async def test_a_larger_body_of_unknown_length_is_413(rig: Rig) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(400):
            yield b"a" * 100_000

    answer = await rig.post(pieces())
    assert (answer.status_code, code_of(answer)) == (413, "request_too_large")


async def post_over_http2(rig: Rig, size_bytes: int, **headers: str) -> httpx.Response:
    """In pieces: httpx copies the rest of a single piece for each frame of HTTP/2."""

    async def pieces() -> AsyncIterator[bytes]:
        body = body_of_size(size_bytes)
        for start in range(0, size_bytes, 2**18):
            yield body[start : start + 2**18]

    headers = {"content-type": "application/json", **headers}
    url = f"http://127.0.0.1:{rig.box.listen_port}{CHAT}"
    async with httpx.AsyncClient(http1=False, http2=True, timeout=PATIENCE_S) as client:
        return await client.post(url, content=pieces(), headers=headers)


@pytest.mark.parametrize("size_bytes", [LIMIT_BYTES + 1, 40_000_000, 100_000_000])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_over_http2_a_larger_body_is_413_and_no_reset(
    rig: Rig, size_bytes: int, known: bool
) -> None:
    """An answer followed by a reset is only the reset to a client that still sends."""
    length = {"content-length": str(size_bytes)} if known else {}
    answer = await post_over_http2(rig, size_bytes, **length)

    assert (answer.status_code, code_of(answer)) == (413, "request_too_large")
    assert "larger than 32 MiB" in answer.json()["error"]["message"]
    assert (await rig.logged()).request.request_body_bytes == size_bytes
    assert rig.services.streams == []


async def test_over_http2_a_body_at_the_limit_passes_whole(rig: Rig) -> None:
    answer = await post_over_http2(rig, LIMIT_BYTES, **{"content-length": str(LIMIT_BYTES)})

    assert answer.status_code == 200
    assert len(rig.upstream.received[0].body) == LIMIT_BYTES


@pytest.mark.parametrize(
    "headers", [{f"x-{number}": "1" for number in range(200)}, {"x": "a" * 62_000}]
)
async def test_too_many_or_too_large_headers_are_431(rig: Rig, headers: dict[str, str]) -> None:
    answer = await rig.post(**headers)
    assert (answer.status_code, code_of(answer)) == (431, "request_headers_too_large")
    assert rig.services.checks == []


@pytest.mark.parametrize("case", BAD_HTTP, ids=[case["name"] for case in BAD_HTTP])
async def test_bad_http_is_answered_in_json(rig: Rig, case: dict[str, Any]) -> None:
    head, body = await rig.raw(case["request"].encode())
    assert head.startswith(f"HTTP/1.1 {case['status']} ".encode())
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    header = re.search(rb"\r\nx-request-id: (.+?)\r\n", head)
    assert error["request_id"] == (header.group(1).decode() if header else None)
    assert rig.services.checks == []


@pytest.mark.parametrize(
    "path", ["/v1%2fmodels", "/v1/models/a%2Fb", "/v1/models/a%252Fb", "/v1/models%5Ca"]
)
async def test_escaped_slashes_reach_ext_authz_as_they_came(rig: Rig, path: str) -> None:
    rig.services.check = deny(404, "{}")
    head, _ = await rig.raw(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    [check] = rig.services.checks
    assert head.startswith(b"HTTP/1.1 404 ")
    assert check.attributes.request.http.path == path


@pytest.mark.parametrize("protocol", ["websocket", "WebSocket", "foo/1, bar"])
async def test_an_upgrade_is_an_ordinary_request_for_ext_authz(rig: Rig, protocol: str) -> None:
    rig.services.check = deny(426, "{}")
    lines = f"upgrade: {protocol}\r\nconnection: Upgrade\r\nsec-websocket-key: AAAA\r\n"
    head, _ = await rig.raw(f"GET /v1/realtime HTTP/1.1\r\nhost: a\r\n{lines}\r\n".encode())
    [check] = rig.services.checks
    sent = [header.key for header in check.attributes.request.http.header_map.headers]
    assert head.startswith(b"HTTP/1.1 426 ")
    assert "sec-websocket-key" in sent


async def test_http_1_0_is_told_what_to_do(rig: Rig) -> None:
    _, body = await rig.raw(b"GET /v1/models HTTP/1.0\r\nhost: a\r\n\r\n")
    assert "HTTP/1.0" in json.loads(body)["error"]["message"]


async def test_an_upstream_that_is_down_is_503(rig: Rig) -> None:
    await rig.upstream.stop()
    try:
        answer = await rig.post()
    finally:
        await rig.upstream.start()
    assert (answer.status_code, code_of(answer)) == (503, "upstream_unavailable")


async def test_a_started_generation_is_not_repeated(rig: Rig) -> None:
    async def cut(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    rig.upstream.answer = cut
    answer = await rig.post()
    assert (answer.status_code, code_of(answer)) == (503, "upstream_unavailable")
    assert len(rig.upstream.received) == 1


async def test_an_upstream_that_speaks_no_http_is_502(rig: Rig) -> None:
    async def garbage(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"garbage\r\n\r\n")

    rig.upstream.answer = garbage
    answer = await rig.post()
    assert (answer.status_code, code_of(answer)) == (502, "upstream_unavailable")
    assert len(rig.upstream.received) == 1


async def test_a_stream_that_is_cut_ends_with_an_error(rig: Rig) -> None:
    async def half(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n")
        await writer.drain()
        writer.close()

    rig.upstream.answer = half
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.post()


async def test_services_that_are_away_close_the_door_and_come_back() -> None:
    async with running_envoy() as rig:
        await rig.server.stop(None)
        answer = await rig.post()
        assert (answer.status_code, code_of(answer)) == (503, "service_unavailable")
        assert answer.headers["retry-after"] == "1"
        again = await rig.services.serve(rig.box.services_sockets[0])
        try:
            await rig.come_back()
        finally:
            await again.stop(None)


async def test_an_idle_request_is_answered_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.dataplane.listener.STREAM_IDLE_TIMEOUT", SHORT)
    async with running_envoy() as rig:
        start = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        head, body = await rig.raw(start + b"content-length: 9\r\n\r\n{")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"]["code"] == "request_timeout"

        async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        rig.upstream.answer = silent
        answer = await rig.client.post(CHAT, json={"model": "tiny"})
        assert (answer.status_code, code_of(answer)) == (504, "upstream_timeout")
