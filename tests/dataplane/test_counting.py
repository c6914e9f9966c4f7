"""The answers that ext_proc gets to count, and the effect of its replies."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from extproc import wire
from headgate._gen import ext_proc_pb2
from headgate.core.contract import ABSENT, OP_SETTLE, Counting, Namespace, UsageKey
from tests.envoy_process import CHAT, Rig, running_envoy
from tests.fake_hooks import broken, deny, entries, route, too_many
from tests.fake_upstream import Received, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

Answer = Callable[[ext_proc_pb2.ProcessingRequest], ext_proc_pb2.ProcessingResponse]
JSON = {"content-type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def counting_envoy() -> AsyncIterator[Rig]:
    async with running_envoy(counting=Counting.EXTPROC) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig(counting_envoy: Rig) -> Rig:
    await counting_envoy.reset()
    counting_envoy.services.process = counting()
    return counting_envoy


def counting(on_body: Answer | None = None) -> Answer:
    """ext_proc asks for the answer, and notes its status and the size of each chunk."""
    admit = route()

    def answer(message: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
        kind = message.WhichOneof("request")
        if kind == "request_headers":
            response = admit(message)
            response.mode_override.CopyFrom(wire._mode(rewrites=False, wants_answer=True))
            return response
        if kind == "response_body" and on_body is not None:
            return on_body(message)
        response = ext_proc_pb2.ProcessingResponse()
        getattr(response, kind or "").SetInParent()
        known = {UsageKey.STATUS: str(wire.decode_answer_headers(message.response_headers).status)}
        if kind == "response_body":
            known = {UsageKey.COMPLETION: str(len(message.response_body.body))}
        response.dynamic_metadata.update({Namespace.USAGE: known})
        return response

    return answer


def kinds(rig: Rig) -> list[str | None]:
    """The messages of the one stream."""
    [stream] = rig.services.streams
    return [message.WhichOneof("request") for message in stream]


async def settled(rig: Rig) -> dict[str, str]:
    """The entries of the settle descriptor, once it has arrived."""
    await rig.services.until(lambda: bool(rig.services.descriptors(OP_SETTLE)))
    return entries(rig.services.descriptors(OP_SETTLE)[0])


async def test_the_answer_comes_in_pieces_and_what_is_noted_adds_up(rig: Rig) -> None:
    rig.upstream.answer = reply(200, b'{"a": 1}')
    answer = await rig.post()
    assert answer.content == b'{"a": 1}'
    assert kinds(rig)[:3] == ["request_headers", "response_headers", "response_body"]
    seen = await settled(rig)
    assert (seen["status"], seen["completion"]) == ("200", "8")


async def test_of_the_answer_s_headers_three_are_told(rig: Rig) -> None:
    """And no other header: the upstream sends `server`, too."""
    rig.upstream.answer = reply(200, b"{}")
    await rig.post()
    headers = rig.services.streams[0][1].response_headers.headers.headers
    assert {header.key for header in headers} == {":status", "content-type", "content-length"}


async def test_a_request_that_ext_proc_never_saw_costs_no_message(rig: Rig) -> None:
    rig.services.check = deny(401, "{}")
    assert (await rig.post()).status_code == 401
    assert rig.services.streams == []


async def test_an_answer_of_envoy_s_own_is_told_as_well(rig: Rig) -> None:
    rig.services.limit = too_many
    assert (await rig.post()).status_code == 429
    assert kinds(rig)[:2] == ["request_headers", "response_headers"]
    assert (await settled(rig))["status"] == "429"


async def test_a_service_that_ends_the_stream_gets_no_more_of_the_answer(rig: Rig) -> None:
    """As it does after the headers of an error."""
    rig.upstream.answer = reply(500, b'{"error": 1}')
    rig.services.ends_after = 2
    answer = await rig.post()
    assert (answer.status_code, answer.content) == (500, b'{"error": 1}')
    assert (await settled(rig))["status"] == "500"


async def test_a_service_that_fails_cuts_the_answer_and_what_was_known_is_settled(
    rig: Rig,
) -> None:
    """The rest never passes uncounted."""
    ended = asyncio.Event()

    async def two(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await first_seen.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n")
        await ended.wait()
        writer.transport.abort()

    first_seen = asyncio.Event()
    fine = counting()

    def second_fails(message: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
        if b"2" in message.response_body.body:
            broken(message)
        return fine(message)

    rig.upstream.answer = two
    rig.services.process = counting(second_fails)
    async with rig.client.stream("POST", CHAT, content=b'{"model":"m"}', headers=JSON) as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"data: 1\n\n"
        first_seen.set()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)
    seen = await settled(rig)
    ended.set()
    assert (seen["status"], seen["completion"], seen["complete"]) == ("200", "9", ABSENT)
