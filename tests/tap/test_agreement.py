"""Both counters on generated answers: they agree, and their numbers are true."""

import asyncio
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.counting.bodies import MAX_HELD_BYTES
from extproc.counting.scanner import USAGE, outermost
from extproc.counting.tracker import MAX_OBJECT_BYTES, Tracker
from headgate.core.contract import Counting
from tests.tap.agreement import count_in_lua
from tests.tap.cases_file import FAKE_TIME_MS
from tests.tap.counting import count, counter_of, cut_everywhere, single_bytes
from tests.tap.rig import Script, TapEnvoy
from tests.tap.streams import Generated, generated

THROUGH_ENVOY = int(os.environ.get("HEADGATE_TEST_STREAMS", "1000"))
IN_LUA = THROUGH_ENVOY * 5
AT_ONCE = 8


@pytest.mark.asyncio(loop_scope="session")
async def test_both_count_the_same_of_generated_answers(tap: TapEnvoy) -> None:
    """Five times as many as go through Envoy one at a time, in the same pieces."""
    for first in range(0, IN_LUA, 100):
        answers = [generated(seed) for seed in range(first, first + 100)]
        for answer, by_tap in zip(answers, await count_in_lua(tap.batch, answers), strict=True):
            by_ext_proc = count(answer.headers, answer.pieces)
            assert by_ext_proc == by_tap, answer
            if answer.usage is not None:
                assert by_ext_proc == (answer.seen, answer.usage), answer


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.timeout(600 + THROUGH_ENVOY)
async def test_both_agree_through_envoy(tap: TapEnvoy) -> None:
    """As clients and the settlement see them. HEADGATE_TEST_STREAMS sets their number."""
    seeds = iter(range(THROUGH_ENVOY))

    async def send() -> None:
        for seed in seeds:
            answer = generated(seed)
            by_tap = await through(tap, answer, Counting.PROXY)
            assert await through(tap, answer, Counting.EXTPROC) == by_tap, answer
            if answer.usage is not None:
                assert by_tap == (answer.seen, answer.usage), answer

    await asyncio.gather(*(send() for _ in range(AT_ONCE)))


async def through(
    tap: TapEnvoy, answer: Generated, counting: Counting
) -> tuple[bytes, dict[str, str]]:
    """The client's view of the answer, and the usage in the access log."""
    script = Script(answer.pieces, {"content-type": answer.headers["x-kind"]})
    _, seen, usage = await tap.answer(script, answer.headers, counting)
    if "first_event_ms" in usage:
        usage["first_event_ms"] = str(FAKE_TIME_MS)
    return seen, usage


WORDS = st.sampled_from(
    [b'{"usage":{', b'"usage":', b'"usage"', b'"prompt_tokens":3', b'"choices":[{', b'"index":1',
     b"}", b"]", b"[", b'"', b"\\", b"\n", b"\n\n", b"\r", b"data:", b"event: ", b"message_start",
     b"response.completed", b"[DONE]", b"null", b",", b"\x00", b"\xff",
     b'"duration":"12.50"', b'"duration":', b'{"usage":{"type":"duration","seconds":3', b"}}",
     b'"metrics":{', b'"time_to_first_token_ms":52.25', b'"queue_time_ms":', b"7.", b".5,"]
)  # fmt: skip
ADMISSIONS = st.fixed_dictionaries(
    {
        "x-kind": st.sampled_from(["text/event-stream", "application/json", "text/plain"]),
        "x-api": st.sampled_from(
            ["chat", "completions", "responses", "messages", "embeddings", "transcriptions"]
        ),
        "x-client-usage": st.sampled_from(["none", "final", "continuous", "untouched"]),
        "x-n": st.sampled_from(["1", "2", "16384"]),
    }
) | st.fixed_dictionaries(
    {
        "x-kind": st.sampled_from(["text/event-stream", "application/json"]),
        "x-api": st.sampled_from(["transcriptions", "translations"]),
        "x-client-usage": st.sampled_from(["none", "final", "continuous", "untouched"]),
        "x-per-second": st.just("50"),
    }
)


@settings(max_examples=400)
@given(body=st.lists(WORDS, max_size=30).map(b"".join), admission=ADMISSIONS)
def test_ext_proc_reads_garbage_the_same_however_it_is_cut(
    body: bytes, admission: dict[str, str]
) -> None:
    """Without alterations all bytes pass unchanged."""
    seen, usage = count(admission, [body])
    assert count(admission, single_bytes(body)) == (seen, usage)
    for pieces in cut_everywhere(body):
        assert count(admission, pieces) == (seen, usage)
    if admission["x-client-usage"] in ("continuous", "untouched"):
        assert seen == body


JSON_WORDS = st.sampled_from(
    [b'{"usage":{', b'"usage":', b'"usage"', b'\\"usage"', b'"prompt_tokens":3', b'"x":{', b'"y":1',
     b"}", b"]", b"[", b'"', b"\\", b" ", b",", b"null", b'"%b"' % (b"z" * 70), b'"a\\"usage":1"',
     b'"usage":{"prompt_tokens":13,"completion_tokens":5}']
)  # fmt: skip


@settings(max_examples=400)
@given(body=st.lists(JSON_WORDS, max_size=25).map(b"".join))
def test_a_tracked_member_is_the_outermost_of_the_whole_text(body: bytes) -> None:
    tracker = Tracker(USAGE, bytes)
    for byte in single_bytes(body):
        tracker.feed(byte)
    tracked, whole = tracker.finish(), outermost(body, USAGE)
    if whole is None or tracked is None:
        assert tracked is whole
        return
    numbers = None if whole.end is None else body[whole.value : whole.end]
    assert (tracked.depth, tracked.numbers) == (whole.depth, numbers)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_ext_proc_never_holds_more_than_its_bound(kind: str) -> None:
    """An event without an end passes in pieces; of a JSON answer only a usage object is kept."""
    admission = {"x-api": "chat", "x-client-usage": "none", "x-n": "1", "x-kind": kind}
    counter, chunk, passed = counter_of(admission), b'"usage":{"a":[1,2],' * 4096, 0
    sent = 3 * MAX_HELD_BYTES // len(chunk)
    for _ in range(sent):
        counted = counter.feed(chunk, False)
        passed += len(chunk if counted.body is None else counted.body)
        bound = MAX_HELD_BYTES + len(chunk) if "stream" in kind else MAX_OBJECT_BYTES
        assert counter.held_bytes <= bound
    assert passed > sent * len(chunk) - MAX_HELD_BYTES
