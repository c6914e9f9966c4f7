"""Reserve and settle through the real Envoy, for every end of a request."""

import asyncio
import socket
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest

from accesslog.meter import meter
from accesslog.types import LogEntry, OpenReservation
from headgate._gen import accesslog_pb2, ext_proc_pb2
from headgate.core.contract import (
    ABSENT,
    OP_RESERVE,
    OP_SETTLE,
    AdmissionKey,
    Namespace,
    UsageKey,
)
from tests.accesslog.entries import decode
from tests.door import http2
from tests.envoy_process import CHAT, Rig, running_envoy
from tests.fake_hooks import MODEL, entries, route, too_many
from tests.fake_upstream import Received, reply
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}
USAGE = b'{"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}'


async def settled(rig: Rig) -> dict[str, str]:
    """The entries of the settle descriptor, once it has arrived."""
    await rig.services.until(lambda: bool(rig.services.descriptors(OP_SETTLE)))
    return entries(rig.services.descriptors(OP_SETTLE)[0])


async def test_the_reserve_carries_the_estimate_and_marks_what_is_absent(rig: Rig) -> None:
    await rig.post()
    [reserve] = rig.services.descriptors(OP_RESERVE)
    assert reserve.hits_addend.value == 40
    seen = entries(reserve)
    assert (seen["reservation"], seen["tenant"], seen["user"]) == ("r1", "acme", ABSENT)
    assert seen["estimate_prompt"] == "30"


@pytest.mark.parametrize(
    "estimate", [None, "", "abc", "-5", "1.5", "1e3", " 5", "9" * 16, 40, True]
)
async def test_a_request_without_a_plain_estimate_is_stopped(rig: Rig, estimate: Any) -> None:
    rig.services.process = route({AdmissionKey.ESTIMATE: estimate})
    answer = await rig.post()
    assert answer.status_code == 503
    assert rig.services.limits == []
    assert rig.upstream.received == []


async def test_a_request_without_any_admission_is_stopped(rig: Rig) -> None:
    def silent(message: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
        response = route()(message)
        response.ClearField("dynamic_metadata")
        return response

    rig.services.process = silent
    assert (await rig.post()).status_code == 503
    assert rig.upstream.received == []


async def test_metadata_in_a_foreign_namespace_is_not_taken_from_ext_proc(rig: Rig) -> None:
    def liar(message: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
        response = route()(message)
        response.dynamic_metadata.update({Namespace.USAGE: {UsageKey.PROMPT: "0"}})
        return response

    rig.services.process = liar
    await rig.post()
    assert (await settled(rig))[UsageKey.PROMPT] == ABSENT


async def test_the_settle_carries_what_the_tap_saw(rig: Rig) -> None:
    rig.upstream.answer = reply(200, USAGE)
    await rig.post()
    seen = await settled(rig)
    assert seen == {
        "op": OP_SETTLE,
        "reservation": "r1",
        "tenant": "acme",
        "estimate": "40",
        "estimate_prompt": "30",
        "per_second": ABSENT,
        "held_by": "replica-7",
        "status": "200",
        "prompt": "7",
        "completion": "5",
        "cached": ABSENT,
        "seconds": ABSENT,
        "events": "0",
        "complete": "1",
        "error": ABSENT,
        "left": "false",
    }
    assert rig.services.descriptors(OP_SETTLE)[0].hits_addend.value == 0


async def test_a_refused_request_is_settled_too(rig: Rig) -> None:
    rig.services.limit = too_many
    assert (await rig.post()).status_code == 429
    assert (await settled(rig))["reservation"] == "r1"
    assert rig.upstream.received == []


async def test_an_unreachable_upstream_is_settled_as_an_error(rig: Rig) -> None:
    async def cut(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    rig.upstream.answer = cut
    assert (await rig.post()).status_code == 503
    seen = await settled(rig)
    assert (seen["status"], seen["left"]) == ("503", "false")
    assert not reservation_of(decoded(await rig.logged())).usage.abandoned


async def test_a_client_that_leaves_in_mid_stream_is_settled(rig: Rig) -> None:
    gone = asyncio.Event()

    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n")
        await gone.wait()
        writer.transport.abort()

    rig.upstream.answer = endless
    body = b'{"model": "tiny"}'
    async with rig.client.stream("POST", CHAT, content=body, headers=JSON) as answer:
        assert await anext(answer.aiter_raw()) == b"data: {}\n\n"
    seen = await settled(rig)
    gone.set()
    assert (seen["status"], seen["complete"], seen["left"]) == ("200", ABSENT, "false")


async def test_a_client_that_leaves_before_the_answer_is_logged_once(rig: Rig) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await gone.wait()
        writer.transport.abort()

    rig.upstream.answer = silent
    _, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
    writer.write(b'content-type: application/json\r\ncontent-length: 16\r\n\r\n{"model":"tiny"}')
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    writer.transport.abort()
    entry = await rig.logged()
    gone.set()
    assert entry.response.response_code_details == "downstream_remote_disconnect"
    assert entry.common_properties.metadata.filter_metadata[Namespace.ADMISSION]
    seen = await settled(rig)
    assert (seen["status"], seen["left"]) == (ABSENT, "true")
    assert reservation_of(decoded(entry)).usage.abandoned


async def test_a_client_that_resets_its_http2_stream_before_the_answer_has_left(rig: Rig) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await gone.wait()
        writer.transport.abort()

    rig.upstream.answer = silent
    _, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
    writer.write(http2.PREFACE + http2.head(http2.POST) + http2.data(b'{"model": "tiny"}'))
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    writer.write(http2.reset())
    assert (await settled(rig))["left"] == "true"
    assert reservation_of(decoded(await rig.logged())).usage.abandoned
    gone.set()
    writer.close()


async def test_a_timeout_of_envoy_while_vllm_works_is_no_refund_and_no_reason_to_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("headgate.dataplane.listener.STREAM_IDLE_TIMEOUT", timedelta(seconds=3))
    async with running_envoy() as rig:
        rig.upstream.answer = silent
        answer = await rig.post()
        seen, entry = await settled(rig), decoded(await rig.logged())

    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert "Set `stream` to true" in answer.json()["error"]["message"]
    assert "retry-after" not in answer.headers
    assert (seen["status"], seen["left"]) == ("504", "true")
    assert reservation_of(entry).usage.abandoned


async def test_a_504_of_vllm_is_refunded(rig: Rig) -> None:
    rig.upstream.answer = reply(504, b"{}")
    answer = await rig.post()
    seen = await settled(rig)

    assert "x-should-retry" not in answer.headers
    assert (seen["status"], seen["left"]) == ("504", "false")
    assert not reservation_of(decoded(await rig.logged())).usage.abandoned


async def test_a_client_that_leaves_while_envoy_connects_has_left_nothing_at_vllm() -> None:
    """An Envoy of its own, because its upstream accepts no connection: its queue is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [await fill(full) for _ in range(4)]
        async with running_envoy() as rig:
            await rig.envoy.apply({MODEL: f"http://127.0.0.1:{full.getsockname()[1]}"})
            await until_upstream_is_away(rig)
            await rig.reset()
            asking = asyncio.create_task(rig.post())
            await rig.services.until(lambda: bool(rig.services.descriptors(OP_RESERVE)))
            asking.cancel()
            seen = await settled(rig)
            assert (seen["status"], seen["left"]) == (ABSENT, "false")
            assert not reservation_of(decoded(await rig.logged())).usage.abandoned
        for client in waiting:
            client.close()


async def fill(full: socket.socket) -> socket.socket:
    """One more connection that waits to be accepted."""
    client = socket.socket()
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.connect(full.getsockname())
    return client


async def until_upstream_is_away(rig: Rig) -> None:
    """The new address is in force once requests no longer reach the old one."""
    while True:
        before = len(rig.upstream.received)
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(0.2):
                await rig.post()
        if len(rig.upstream.received) == before:
            return


def decoded(entry: accesslog_pb2.HTTPAccessLogEntry) -> LogEntry:
    """The entry as the access log service reads it."""
    message = accesslog_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry)
    return decode(message.SerializeToString())[0]


def reservation_of(entry: LogEntry) -> OpenReservation:
    finished = meter(entry, lambda _: None)
    assert finished is not None
    assert finished.reservation is not None
    return finished.reservation
