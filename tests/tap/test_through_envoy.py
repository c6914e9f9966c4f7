"""Both counters on real answers: the client's bytes, and the usage in the access log."""

import asyncio
import random
import time
from contextlib import suppress

import httpx
import pytest

from headgate.core.contract import Counting
from tests.patience import PATIENCE_S
from tests.tap.cases_file import CLIENT_USAGES, Case, load
from tests.tap.rig import Script, TapEnvoy
from tests.tap.usual_streams import usual_chunk

pytestmark = pytest.mark.asyncio(loop_scope="session")
by_both = pytest.mark.parametrize("counting", Counting)
STREAMS = load("chunks.yaml") + load("named_events.yaml")
CHAT = {"x-client-usage": "none", "x-api": "chat"}
MIB = 1024 * 1024


def event(completion: int, index: int = 0, usage: bool = True) -> bytes:
    """A chat event with one token for the choice `index`."""
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


@by_both
@pytest.mark.parametrize("client_usage", CLIENT_USAGES)
@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
async def test_a_stream_in_pieces_reaches_the_client_as_if_unmetered(
    tap: TapEnvoy, counting: Counting, case: Case, client_usage: str
) -> None:
    sent = case.sent()
    for pieces in (random_pieces(sent, 1), random_pieces(sent, 2), [b"%c" % byte for byte in sent]):
        before_ms = int(time.time() * 1000)
        _, seen, usage = await tap.answer(Script(pieces), case.headers(client_usage), counting)
        assert seen == case.seen(client_usage)
        if "first_event_ms" in usage:
            assert before_ms - 1 <= int(usage["first_event_ms"]) <= time.time() * 1000 + 1
            usage["first_event_ms"] = case.usage["first_event_ms"]
        assert usage == case.usage


@by_both
@pytest.mark.parametrize("client_usage", ["none", "continuous"])
async def test_an_abort_leaves_the_running_totals(
    tap: TapEnvoy, counting: Counting, client_usage: str
) -> None:
    sent = [event(1), event(1, index=1), event(2), event(3), event(2, index=1)]
    headers = {**CHAT, "x-client-usage": client_usage, "x-n": "2"}
    async with tap.stream(Script(sent, ending="stall"), headers, counting) as (response, log):
        seen = b""
        async for part in response.aiter_raw():
            seen += part
            if seen.count(b"\n\n") == len(sent):
                break
    usage = await asyncio.wait_for(log, PATIENCE_S)
    assert (usage["prompt"], usage["completion"]) == ("13", "5")
    assert "complete" not in usage


@by_both
@pytest.mark.parametrize("client_usage", ["none", "continuous"])
async def test_an_abort_of_a_long_stream_leaves_the_count_of_its_last_chunk(
    tap: TapEnvoy, counting: Counting, client_usage: str
) -> None:
    """In vLLM's own shape, which the tap reads by a shorter way."""
    sent = [usual_chunk(completion=str(number)) for number in range(1, 206)]
    headers = {**CHAT, "x-client-usage": client_usage}
    async with tap.stream(Script(sent, ending="stall"), headers, counting) as (response, log):
        seen = b""
        async for part in response.aiter_raw():
            seen += part
            if seen.count(b"\n\n") == len(sent):
                break
    usage = await asyncio.wait_for(log, PATIENCE_S)
    assert (usage["prompt"], usage["completion"]) == ("13", "205")
    assert "complete" not in usage


@by_both
async def test_an_abort_without_usage_leaves_the_events(tap: TapEnvoy, counting: Counting) -> None:
    async with tap.stream(Script([SEEN, SEEN, SEEN[:30]], ending="stall"), CHAT, counting) as (
        answer,
        log,
    ):
        seen = b""
        async for part in answer.aiter_raw():
            seen += part
            if seen == SEEN * 2:
                break
    usage = await asyncio.wait_for(log, PATIENCE_S)
    assert usage["events"] == "2"
    assert not {"complete", "completion", "prompt"} & usage.keys()


@by_both
async def test_a_cut_by_the_upstream_is_not_complete(tap: TapEnvoy, counting: Counting) -> None:
    gate = asyncio.Event()
    script = Script([event(1), event(2)], ending="cut", gate=gate)
    async with tap.stream(script, CHAT, counting) as (answer, log):
        seen = b""
        parts = answer.aiter_raw()
        while seen != SEEN * 2:
            seen += await anext(parts)
        gate.set()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)
    usage = await asyncio.wait_for(log, PATIENCE_S)
    assert usage["completion"] == "2"
    assert "complete" not in usage


async def test_what_ext_proc_still_has_at_a_cut_is_neither_seen_nor_counted(tap: TapEnvoy) -> None:
    """Envoy drops the bytes that it holds when the upstream breaks off. Before the answer has begun
    the client gets Envoy's own error."""
    script = Script([event(number) for number in range(1, 40)], ending="cut")
    async with tap.stream(script, CHAT, Counting.EXTPROC) as (answer, log):
        seen = b""
        with suppress(httpx.RemoteProtocolError):
            async for part in answer.aiter_raw():
                seen += part
    usage = await asyncio.wait_for(log, PATIENCE_S)
    assert answer.status_code in (200, 502)
    assert seen.count(SEEN) <= int(usage.get("completion", "0")) <= 39
    assert "complete" not in usage


@by_both
async def test_an_upstream_may_speak_http2_and_send_trailers(
    tap: TapEnvoy, counting: Counting
) -> None:
    for ending in ("end", "trailers"):
        script = Script([event(1), event(2) + b"data: [DONE]\n\n"], ending=ending)
        _, seen, usage = await tap.answer(script, CHAT, counting, "h2")
        assert seen == SEEN * 2 + b"data: [DONE]\n\n"
        assert (usage["completion"], usage["events"], usage["complete"]) == ("2", "2", "1")


@by_both
async def test_an_answer_with_trailers_is_complete(tap: TapEnvoy, counting: Counting) -> None:
    body = b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    script = Script([body], {"content-type": "application/json"}, ending="trailers")
    _, seen, usage = await tap.answer(script, {**CHAT, "x-client-usage": "untouched"}, counting)
    assert seen == body
    assert (usage["completion"], usage["complete"]) == ("4", "1")


async def test_who_was_not_admitted_is_neither_counted_nor_altered(tap: TapEnvoy) -> None:
    _, seen, usage = await tap.answer(Script([event(1)]), {"x-api": "chat"})
    assert (seen, usage) == (event(1), {})


@by_both
@pytest.mark.parametrize("client_usage", ["none", "untouched"])
async def test_a_content_length_goes_only_where_it_would_be_wrong(
    tap: TapEnvoy, counting: Counting, client_usage: str
) -> None:
    """Also if Envoy streams the answer to ext_proc: then it removes every content-length."""
    headers = {"content-type": "text/event-stream", "content-length": str(len(event(1)))}
    script = Script([event(1)[:20], event(1)[20:]], headers)
    response, seen, usage = await tap.answer(
        script, {**CHAT, "x-client-usage": client_usage}, counting
    )
    is_kept = client_usage == "untouched" and counting is Counting.PROXY
    assert ("content-length" in response.headers) == is_kept
    assert seen == (SEEN if client_usage == "none" else event(1))
    assert usage["completion"] == "1"


@by_both
async def test_a_compressed_answer_passes_unread(tap: TapEnvoy, counting: Counting) -> None:
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    _, seen, usage = await tap.answer(Script([event(1)], headers), CHAT, counting)
    assert seen == event(1)
    assert usage == {"status": "200", "events": "0", "complete": "1"}


@by_both
@pytest.mark.parametrize("status", [204, 404, 500])
async def test_the_status_is_told_for_every_answer(
    tap: TapEnvoy, counting: Counting, status: int
) -> None:
    headers = {"content-type": "application/json", "content-length": "0"}
    _, seen, usage = await tap.answer(Script([], headers, status), CHAT, counting)
    assert seen == b""
    assert usage == {"status": str(status), "events": "0", "complete": "1"}


@pytest.mark.parametrize("n", ["0", "-2", "0.5", "1e9"])
async def test_an_odd_number_of_choices_does_no_harm(tap: TapEnvoy, n: str) -> None:
    headers = {"x-client-usage": "none", "x-api": "completions", "x-n": n}
    _, seen, usage = await tap.answer(Script([event(1), event(1, index=1)]), headers)
    assert (seen, usage["completion"]) == (SEEN + event(1, index=1, usage=False), "2")


@by_both
async def test_an_event_that_is_too_long_passes_and_the_next_is_read(
    tap: TapEnvoy, counting: Counting
) -> None:
    long = b'data: {"choices":[{"delta":"' + b"x" * (9 * MIB) + b'"}],"usage":{}}\n\n'
    _, seen, usage = await tap.answer(Script([event(1), long, event(2)]), CHAT, counting)
    assert seen == SEEN + long + SEEN
    assert (usage["completion"], usage["events"]) == ("2", "2")


@by_both
async def test_usage_is_found_at_the_end_of_an_answer_of_any_size(
    tap: TapEnvoy, counting: Counting
) -> None:
    echo = b'{"usage":{"prompt_tokens":1,"completion_tokens":1}},'
    data = b"[0.0123,-0.4567]," * (MIB // 2)
    body = b'{"echo":[%b%b0],"usage":{"prompt_tokens":3,"completion_tokens":4}}' % (echo, data)
    headers = {"content-type": "application/json"}
    _, seen, usage = await tap.answer(
        Script([body], headers), {**CHAT, "x-api": "embeddings"}, counting
    )
    assert seen == body
    assert (usage["prompt"], usage["completion"]) == ("3", "4")


LOGPROBS = b'{"9707":{"logprob":-0.25,"rank":1,"decoded_token":"\\"H\\\\"},"13":{"rank":2}},'
LONG = b"[null," + LOGPROBS * (9 * MIB // len(LOGPROBS)) + b"{}]"
NUMBERS = b'"usage":{"prompt_tokens":82063,"completion_tokens":4}'


@by_both
@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("chat", b'{"choices":[],%b,"prompt_logprobs":%b}' % (NUMBERS, LONG)),
        ("completions", b'{%b,"choices":[{"index":0,"prompt_logprobs":%b}]}' % (NUMBERS, LONG)),
        (
            "responses",
            b'{"tools":[{"usage":{"input_tokens":1,"output_tokens":1}}],"usage":{"input_tokens":'
            b'82063,"output_tokens":4},"output":[{"usage":{"input_tokens":2}},%b]}' % LONG,
        ),
        (
            "messages",
            b'{"usage":{"input_tokens":63,"cache_read_input_tokens":82000,"output_tokens":4},'
            b'"content":%b}' % LONG,
        ),
    ],
)
async def test_usage_is_found_before_a_rest_of_any_size(
    tap: TapEnvoy, counting: Counting, api: str, body: bytes
) -> None:
    """vLLM's chat writes `prompt_logprobs` behind the usage, which the client makes this long."""
    script = Script([body], {"content-type": "application/json"})
    admission = {"x-api": api, "x-client-usage": "untouched"}
    _, seen, usage = await tap.answer(script, admission, counting)
    assert seen == body
    assert (usage["prompt"], usage["completion"], usage["complete"]) == ("82063", "4", "1")


@by_both
async def test_a_duration_is_found_before_a_rest_of_any_size(
    tap: TapEnvoy, counting: Counting
) -> None:
    body = b'{"duration":"12.5","segments":%b}' % LONG
    script = Script([body], {"content-type": "application/json"})
    admission = {"x-api": "transcriptions", "x-client-usage": "untouched", "x-per-second": "50"}
    _, seen, usage = await tap.answer(script, admission, counting)
    assert (seen, usage["seconds"]) == (body, "13")
