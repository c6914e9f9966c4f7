"""Failures on demand: what they are called, and what a client sees of them."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from headgate.simulator.failures import ALLOWED_WORDS, Simulation, parse_header, parse_words
from headgate.simulator.server import running
from headgate.simulator.settings import Settings
from headgate.simulator.vllm_errors import VllmError
from tests.simulator.metrics_page import read_until
from tests.simulator.requests_and_events import (
    CHAT,
    COMPLETIONS,
    GENERATING,
    MESSAGES,
    RESPONSES,
    asking,
    events_of,
    streamed,
)


@pytest.fixture
async def own() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server of the test's own."""
    async with (
        running(Settings(ttft_s=0, token_interval_s=0), "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        yield http


def test_a_header_is_words_with_numbers() -> None:
    parsed = parse_header(" status=503, ttft = 0.5 ,cut_after=3,")

    assert parsed == Simulation(status=503, ttft=0.5, cut_after=3)
    assert parse_header("") == Simulation()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("explode=1", "unknown word 'explode'"),
        ("stall_after", "'stall_after' is not word=number"),
        ("ttft=1,ttft=2", "'ttft' is given twice"),
        ("ttft=soon", "ttft='soon' is not a number"),
        ("ttft=nan", "not between 0 and 3600 seconds"),
        ("interval=-1", "not between 0 and 3600 seconds"),
        ("cut_after=1.5", "not a whole number"),
        ("cut_after=-1", "not between 0 and"),
        ("output_tokens=0", "not between 1 and"),
        ("status=200", "not between 400 and 599"),
        ("cut_after=1,stall_after=2", "only one of stall_after, cut_after"),
    ],
)
def test_a_wrong_header_is_told_with_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(VllmError) as raised:
        parse_header(text)

    assert problem in raised.value.message
    assert all(word in raised.value.message for word in ALLOWED_WORDS)
    assert raised.value.status == 400


def test_a_requests_own_words_win_over_those_for_all() -> None:
    for_all = parse_words({"ttft": 1, "stall_after": 5})

    assert for_all.overridden_by(parse_header("cut_after=2")) == Simulation(ttft=1, cut_after=2)
    assert for_all.overridden_by(Simulation()) == for_all


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (500, "InternalServerError"),
        (503, "Service Unavailable"),
        (599, "Unknown Status"),
    ],
)
async def test_a_status_is_answered_with_an_error_object(
    client: httpx.AsyncClient, status: int, kind: str
) -> None:
    answer = await client.post(CHAT, json={}, headers={"x-simulate": f"status={status}"})

    assert answer.status_code == status
    assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == (kind, status)


async def test_a_wrong_header_is_a_400(client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, json=asking(CHAT), headers={"x-simulate": "explode=1"})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-simulate"


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("events", [0, 3])
async def test_a_cut_stream_has_its_events_and_no_end(
    client: httpx.AsyncClient, path: str, events: int
) -> None:
    headers = {"x-simulate": f"cut_after={events}"}
    parts: list[str] = []
    body = asking(path, stream=True)
    async with client.stream("POST", path, json=body, headers=headers) as answer:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await _read_into(parts, answer)

    assert "".join(parts).count("\n\n") == events


async def test_a_cut_after_the_last_event_still_leaves_the_body_open(
    client: httpx.AsyncClient,
) -> None:
    headers = {"x-simulate": "cut_after=7"}  # the role, 5 tokens, the end mark
    body = asking(CHAT, stream=True)
    async with client.stream("POST", CHAT, json=body, headers=headers) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


@pytest.mark.parametrize("path", GENERATING)
async def test_a_cut_answer_breaks_off_in_its_body(client: httpx.AsyncClient, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await client.post(path, json=asking(path), headers={"x-simulate": "cut_after=0"})


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_reset_breaks_off_without_a_goodbye(
    client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    headers = {"x-simulate": "reset_after=2"}
    with pytest.raises(httpx.ReadError):
        await client.post(path, json=asking(path, stream=stream), headers=headers)


@pytest.mark.parametrize("path", GENERATING)
async def test_a_server_that_hangs_up_answers_nothing(client: httpx.AsyncClient, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await client.post(path, json=asking(path), headers={"x-simulate": "hang_up=0"})


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_dying_engine_ends_a_stream_with_an_error_and_done(
    client: httpx.AsyncClient, path: str
) -> None:
    options = {"include_usage": True}
    events = await streamed(client, path, {"x-simulate": "error_after=2"}, stream_options=options)

    assert len(events) == 2 + 2
    error = events[-2][1]["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["code"], events[-1][1]) == ("InternalServerError", 500, "[DONE]")


async def test_a_dying_engine_ends_messages_with_an_error_event(client: httpx.AsyncClient) -> None:
    events = await streamed(client, MESSAGES, {"x-simulate": "error_after=3"})

    assert [name for name, _ in events[-2:]] == ["content_block_delta", "error"]
    assert events[-1][1]["error"]["type"] == "internal_error"


async def test_a_dying_engine_cuts_responses(client: httpx.AsyncClient) -> None:
    body = asking(RESPONSES, stream=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(RESPONSES, json=body, headers={"x-simulate": "error_after=3"})


@pytest.mark.parametrize("path", GENERATING)
async def test_a_dying_engine_is_a_500_where_nothing_is_streamed(
    client: httpx.AsyncClient, path: str
) -> None:
    headers = {"x-simulate": "error_after=0"}
    answer = await client.post(path, json=asking(path), headers=headers)

    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalServerError"


async def test_a_stalled_stream_sends_its_events_and_stays_open(client: httpx.AsyncClient) -> None:
    parts: list[str] = []
    body = asking(CHAT, stream=True)
    headers = {"x-simulate": "stall_after=3"}
    async with client.stream("POST", CHAT, json=body, headers=headers) as answer:
        texts = answer.aiter_text()
        while "".join(parts).count("\n\n") < 3:
            parts.append(await anext(texts))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                parts.append(await anext(texts))

    assert len(events_of("".join(parts))) == 3


async def test_a_failure_for_all_holds_until_it_is_cleared(own: httpx.AsyncClient) -> None:
    set_to = await own.post("/simulate", json={"status": 503})
    assert set_to.json() == (await own.get("/simulate")).json() == {"status": 503}
    for path in GENERATING:
        assert (await own.post(path, json=asking(path))).status_code == 503
    assert (await own.get("/health")).status_code == 200

    assert (await own.delete("/simulate")).json() == {}
    assert (await own.post(CHAT, json=asking(CHAT))).status_code == 200


async def test_a_wrong_failure_for_all_is_refused_and_changes_nothing(
    own: httpx.AsyncClient,
) -> None:
    answer = await own.post("/simulate", json={"status": 503, "explode": 1})

    assert answer.status_code == 400
    assert (await own.get("/simulate")).json() == {}


async def test_a_delayed_request_waits_in_the_queue(own: httpx.AsyncClient) -> None:
    headers = {"x-simulate": "headers_delay=30"}
    asked = asyncio.create_task(own.post(CHAT, json=asking(CHAT), headers=headers))
    await read_until(own, "num_requests_waiting", 1)
    asked.cancel()
    await read_until(own, "num_requests_waiting", 0)


async def _read_into(parts: list[str], answer: httpx.Response) -> None:
    async for part in answer.aiter_text():
        parts.append(part)
