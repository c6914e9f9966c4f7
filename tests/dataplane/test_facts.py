"""What the record of a request says, for every way in which a real Envoy ends one."""

import asyncio

import httpx
import pytest

from accesslog.meter import meter
from accesslog.types import Ended, UsageRecord
from accesslog.wire import read_entry
from headgate._gen import ratelimit_pb2
from tests.accesslog.entries import prices_of
from tests.envoy_process import CHAT, Rig
from tests.fake_hooks import too_many
from tests.fake_upstream import Received, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEAD = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"a\r\ndata: {}\n\n\r\n"


async def recorded(rig: Rig) -> UsageRecord:
    """The record of the one request of this test."""
    finished = meter(read_entry(await rig.logged()), prices_of)
    assert finished is not None
    return finished.record


async def test_a_whole_answer_has_its_pod_times_and_trace(rig: Rig) -> None:
    sent = f"00-{TRACE}-00f067aa0ba902b7-01"
    body = b'{"model": "tiny", "max_tokens": 12}'
    assert (await rig.post(body, traceparent=sent)).status_code == 200
    record = await recorded(rig)
    assert (record.upstream_status, record.ended, record.attempts) == (200, Ended.COMPLETE, 1)
    assert record.trace_id == TRACE
    assert record.pod is not None
    assert record.pod.startswith("127.0.0.1:")
    assert record.max_tokens == 12
    assert record.to_upstream_s is not None
    assert record.upstream_first_byte_s is not None
    assert 0 < record.to_upstream_s <= record.upstream_first_byte_s <= record.duration_s


async def test_an_error_of_the_upstream_is_the_upstreams(rig: Rig) -> None:
    rig.upstream.answer = reply(500, b"{}")
    assert (await rig.post()).status_code == 500
    record = await recorded(rig)
    assert (record.status, record.upstream_status, record.ended) == (500, 500, Ended.COMPLETE)


async def test_a_refusal_names_the_limit_and_no_status_of_an_upstream(rig: Rig) -> None:
    def refuse(request: ratelimit_pb2.RateLimitRequest) -> ratelimit_pb2.RateLimitResponse:
        answer = too_many(request)
        facts = {"count": "tokens", "most": "100", "used": "90", "asked": "20"}
        answer.dynamic_metadata.update({f"refused_{key}": text for key, text in facts.items()})
        answer.dynamic_metadata.update({"refused_by": "acme tokens/minute"})
        return answer

    rig.services.limit = refuse
    assert (await rig.post()).status_code == 429
    record = await recorded(rig)
    assert (record.status, record.upstream_status, record.ended) == (429, None, None)
    assert (record.limit, record.limit_count) == ("acme tokens/minute", "tokens")
    assert (record.limit_most, record.limit_used, record.limit_asked) == (100, 90, 20)
    assert (record.pod, record.attempts, record.to_upstream_s) == (None, None, None)


async def test_an_upstream_that_cuts_before_its_answer_has_no_status(rig: Rig) -> None:
    async def cut(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    rig.upstream.answer = cut
    assert (await rig.post()).status_code == 503
    record = await recorded(rig)
    assert (record.status, record.upstream_status) == (503, None)
    assert record.ended is Ended.UPSTREAM_BROKE


async def test_an_upstream_that_cuts_its_stream_has_broken_it(rig: Rig) -> None:
    async def cut(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + EVENT)
        await writer.drain()
        writer.close()

    rig.upstream.answer = cut
    async with rig.client.stream(
        "POST", CHAT, content=b'{"model": "tiny"}', headers={"content-type": "application/json"}
    ) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    record = await recorded(rig)
    assert (record.status, record.upstream_status) == (200, 200)
    assert record.ended is Ended.UPSTREAM_BROKE


async def test_a_client_that_leaves_its_stream_has_left(rig: Rig) -> None:
    gone = asyncio.Event()

    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + EVENT)
        await gone.wait()
        writer.transport.abort()

    rig.upstream.answer = endless
    async with rig.client.stream(
        "POST", CHAT, content=b'{"model": "tiny"}', headers={"content-type": "application/json"}
    ) as answer:
        await anext(answer.aiter_raw())
    record = await recorded(rig)
    gone.set()
    assert (record.status, record.upstream_status) == (200, 200)
    assert record.ended is Ended.CLIENT_LEFT
