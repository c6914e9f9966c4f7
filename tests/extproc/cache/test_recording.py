"""Only a whole answer with its usage is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cache.recording import Recording
from extproc.counting.counter import AnswerHead
from headgate.core.apis import Api
from tests.extproc.cache.builders import JSON_ANSWER, STREAM_ANSWER

JSON = AnswerHead(200, "application/json", None)
STREAM = AnswerHead(200, "text/event-stream; charset=utf-8", None)


def recorded(head: AnswerHead, body: bytes, api: Api = Api.CHAT) -> bytes | None:
    """The body that is kept, None if none is."""
    recording = Recording(api, 10_000)
    assert recording.begin(head)
    assert recording.add(body[:10])
    assert recording.add(body[10:])
    answer = recording.answer(1000.0)
    return None if answer is None else answer.body


@pytest.mark.parametrize(("head", "body"), [(JSON, JSON_ANSWER), (STREAM, STREAM_ANSWER)])
def test_a_whole_answer_is_kept_byte_for_byte(head: AnswerHead, body: bytes) -> None:
    assert recorded(head, body) == body


def test_its_tokens_are_kept_with_it() -> None:
    recording = Recording(Api.CHAT, 10_000)
    recording.begin(STREAM)
    recording.add(STREAM_ANSWER)
    answer = recording.answer(1000.0)

    assert answer is not None
    assert (answer.prompt, answer.completion, answer.stored_s) == (3, 2, 1000.0)


@given(st.sampled_from([(JSON, JSON_ANSWER), (STREAM, STREAM_ANSWER)]), st.data())
def test_an_answer_that_is_cut_anywhere_is_not_kept(
    answer: tuple[AnswerHead, bytes], data: st.DataObject
) -> None:
    """The last event of a stream counts without its blank line."""
    head, body = answer
    most = len(body.rstrip()) - 1
    cut = data.draw(st.integers(0, most))

    assert recorded(head, body[:cut]) is None


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (JSON, b'{"choices":[]}'),
        (JSON, b'{"choices":[],"usage":{"prompt_tokens":3}}'),
        (JSON, JSON_ANSWER.replace(b'"stop"', b'"abort"')),
        (STREAM, STREAM_ANSWER.replace(b'"stop"', b'"error"')),
        (STREAM, b'data: {"error":{"message":"gone"}}\n\n' + STREAM_ANSWER),
        (STREAM, b"data: [DONE]\n\n"),
    ],
    ids=range(6),
)
def test_an_answer_without_usage_or_that_failed_is_not_kept(head: AnswerHead, body: bytes) -> None:
    assert recorded(head, body) is None


def test_an_end_by_length_is_an_end() -> None:
    body = JSON_ANSWER.replace(b'"stop"', b'"length"')

    assert recorded(JSON, body) == body


def test_an_embedding_has_no_output() -> None:
    body = b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}'

    assert recorded(JSON, body, Api.EMBEDDINGS) == body


@pytest.mark.parametrize(
    "head",
    [
        AnswerHead(500, "application/json", None),
        AnswerHead(206, "application/json", None),
        AnswerHead(None, "application/json", None),
        AnswerHead(200, "text/html", None),
        AnswerHead(200, "application/json", "gzip"),
    ],
)
def test_other_headers_begin_no_recording(head: AnswerHead) -> None:
    assert not Recording(Api.CHAT, 10_000).begin(head)


def test_an_answer_above_its_bound_is_dropped() -> None:
    recording = Recording(Api.CHAT, 15)
    recording.begin(JSON)

    assert [recording.add(b"x" * 10), recording.add(b"x" * 10)] == [True, False]
