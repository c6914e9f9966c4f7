"""The tap on real answers: its bytes on the wire, and its usage in the access log."""

import asyncio
import random
import time

import pytest

from tests.tap.cases_file import CLIENT_USAGES, Case, load
from tests.tap.rig import WAIT_S, Script, TapEnvoy

pytestmark = pytest.mark.asyncio(loop_scope="session")
STREAMS = load("chunks.yaml") + load("named_events.yaml")
CHAT = {"x-client-usage": "none", "x-api": "chat"}
MIB = 1024 * 1024


def event(completion: int, index: int = 0, usage: bool = True) -> bytes:
    """A chat event with one token of choice `index`."""
    numbers = f',"usage":{{"prompt_tokens":13,"completion_tokens":{completion}}}' if usage else ""
    choice = f'{{"index":{index},"delta":{{"content":"a"}}}}'
    return f'data: {{"choices":[{choice}]{numbers}}}\n\n'.encode()


SEEN = event(1, usage=False)


def random_pieces(text: bytes, seed: int) -> list[bytes]:
    """The text in pieces of 1 to 40 bytes."""
    chance, pieces = random.Random(seed), []
    while text:
        length = chance.randint(1, 40)
        pieces.append(text[:length])
        text = text[length:]
    return pieces


@pytest.mark.parametrize("client_usage", CLIENT_USAGES)
@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
async def test_a_stream_in_pieces_reaches_the_client_as_if_unmetered(
    tap: TapEnvoy, case: Case, client_usage: str
) -> None:
    sent = case.sent()
    for pieces in (random_pieces(sent, 1), random_pieces(sent, 2), [b"%c" % one for one in sent]):
        before_ms = int(time.time() * 1000)
        _, seen, usage = await tap.answer(Script(pieces), case.headers(client_usage))
        assert seen == case.seen(client_usage)
        if "first_event_ms" in usage:
            assert before_ms - 1 <= int(usage["first_event_ms"]) <= time.time() * 1000 + 1
            usage["first_event_ms"] = case.usage["first_event_ms"]
        assert usage == case.usage


@pytest.mark.parametrize("client_usage", ["none", "continuous"])
async def test_an_abort_leaves_the_running_totals(tap: TapEnvoy, client_usage: str) -> None:
    sent = [event(1), event(1, index=1), event(2), event(3), event(2, index=1)]
    headers = {**CHAT, "x-client-usage": client_usage, "x-n": "2"}
    async with tap.stream(Script(sent, ending="stall"), headers) as (response, log):
        seen = b""
        async for part in response.aiter_raw():
            seen += part
            if seen.count(b"\n\n") == len(sent):
                break
    usage = await asyncio.wait_for(log, WAIT_S)
    assert (usage["prompt"], usage["completion"]) == ("13", "5")
    assert "complete" not in usage


async def test_an_abort_without_usage_leaves_the_events(tap: TapEnvoy) -> None:
    async with tap.stream(Script([SEEN, SEEN, SEEN[:30]], ending="stall"), CHAT) as (answer, log):
        seen = b""
        async for part in answer.aiter_raw():
            seen += part
            if seen == SEEN * 2:
                break
    usage = await asyncio.wait_for(log, WAIT_S)
    assert usage["events"] == "2"
    assert not {"complete", "completion", "prompt"} & usage.keys()


async def test_a_cut_by_the_upstream_is_not_complete(tap: TapEnvoy) -> None:
    async with tap.stream(Script([event(1), event(2)], ending="cut"), CHAT) as (answer, log):
        with pytest.raises(Exception, match=r"closed|incomplete"):
            async for _ in answer.aiter_raw():
                pass
    usage = await asyncio.wait_for(log, WAIT_S)
    assert usage["completion"] == "2"
    assert "complete" not in usage


async def test_who_was_not_admitted_is_neither_counted_nor_altered(tap: TapEnvoy) -> None:
    _, seen, usage = await tap.answer(Script([event(1)]), {"x-api": "chat"})
    assert (seen, usage) == (event(1), {})


@pytest.mark.parametrize("client_usage", ["none", "untouched"])
async def test_a_content_length_goes_only_where_it_would_be_wrong(
    tap: TapEnvoy, client_usage: str
) -> None:
    headers = {"content-type": "text/event-stream", "content-length": str(len(event(1)))}
    script = Script([event(1)[:20], event(1)[20:]], headers)
    response, seen, usage = await tap.answer(script, {**CHAT, "x-client-usage": client_usage})
    assert ("content-length" in response.headers) == (client_usage == "untouched")
    assert seen == (SEEN if client_usage == "none" else event(1))
    assert usage["completion"] == "1"


async def test_a_compressed_answer_passes_unread(tap: TapEnvoy) -> None:
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    _, seen, usage = await tap.answer(Script([event(1)], headers), CHAT)
    assert seen == event(1)
    assert usage == {"status": "200", "events": "0", "complete": "1"}


@pytest.mark.parametrize("status", [204, 404, 500])
async def test_the_status_is_told_for_every_answer(tap: TapEnvoy, status: int) -> None:
    headers = {"content-type": "application/json", "content-length": "0"}
    _, seen, usage = await tap.answer(Script([], headers, status), CHAT)
    assert seen == b""
    assert usage == {"status": str(status), "events": "0", "complete": "1"}


@pytest.mark.parametrize("n", ["0", "-2", "0.5", "1e9"])
async def test_an_odd_number_of_choices_does_no_harm(tap: TapEnvoy, n: str) -> None:
    headers = {"x-client-usage": "none", "x-api": "completions", "x-n": n}
    _, seen, usage = await tap.answer(Script([event(1), event(1, index=1)]), headers)
    assert (seen, usage["completion"]) == (SEEN + event(1, index=1, usage=False), "2")


async def test_an_event_that_is_too_long_passes_and_the_next_is_read(tap: TapEnvoy) -> None:
    long = b'data: {"choices":[{"delta":"' + b"x" * (9 * MIB) + b'"}],"usage":{}}\n\n'
    _, seen, usage = await tap.answer(Script([event(1), long, event(2)]), CHAT)
    assert seen == SEEN + long + SEEN
    assert (usage["completion"], usage["events"]) == ("2", "2")


async def test_usage_is_found_at_the_end_of_an_answer_of_any_size(tap: TapEnvoy) -> None:
    echo = b'{"usage":{"prompt_tokens":1,"completion_tokens":1}},'
    data = b"[0.0123,-0.4567]," * (MIB // 2)
    body = b'{"echo":[%b%b0],"usage":{"prompt_tokens":3,"completion_tokens":4}}' % (echo, data)
    headers = {"content-type": "application/json"}
    _, seen, usage = await tap.answer(Script([body], headers), {**CHAT, "x-api": "embeddings"})
    assert seen == body
    assert (usage["prompt"], usage["completion"]) == ("3", "4")
