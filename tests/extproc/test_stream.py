"""One stream: headers, then the body if it was asked for, and nothing else."""

import pytest
from msgspec import structs

from extproc.counting.counter import AnswerChunk, AnswerHead
from extproc.stream import AnswerBegin, AnswerEnd, Replace, RequestStream
from extproc.transitions import TRANSITIONS, Event, State, UnexpectedMessageError
from extproc.types import Admit, Answer, Refuse, RequestDecision, RequestFacts, Rewrite
from headgate.core.apis import Api, ErrorShape
from headgate.core.contract import AdmissionKey, UsageKey
from headgate.core.errors import Refusal
from tests.extproc.builders import facts

PLAIN = Admit(headers={}, admission={}, rewrite=None)
REWRITTEN = structs.replace(PLAIN, rewrite=Rewrite("served", force_usage=False))
ADMISSION = {
    AdmissionKey.API: "chat",
    AdmissionKey.CLIENT_USAGE: "none",
    AdmissionKey.CHOICES: "1",
}
STREAMED = AnswerHead(200, "text/event-stream", None)
EVENT = b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'


def stream_of(decision: RequestDecision, wants_answer: bool = False) -> RequestStream:
    def decide(_: RequestFacts) -> RequestDecision:
        return decision

    return RequestStream(decide, lambda: 1000, wants_answer)


def counting_stream(rewrite: Rewrite | None = None) -> RequestStream:
    """A stream whose request is decided, and which waits for the answer."""
    stream = stream_of(Admit(headers={}, admission=ADMISSION, rewrite=rewrite), wants_answer=True)
    stream.on_headers(facts())
    if rewrite is not None:
        stream.on_body(b'{"model":"a"}')
    return stream


@pytest.mark.parametrize("decision", [PLAIN, Answer(Api.MODELS, b"{}")])
def test_one_reply_is_all_when_nothing_is_rewritten(decision: RequestDecision) -> None:
    """The body never leaves the proxy."""
    stream = stream_of(decision)

    assert stream.on_headers(facts()) is decision
    assert stream.done


def test_a_rewrite_takes_a_second_reply() -> None:
    """The body follows the headers and ends the stream."""
    stream = stream_of(REWRITTEN)

    assert stream.on_headers(facts()) is REWRITTEN
    assert not stream.done
    assert stream.on_body(b'{"model":"a"}') == Replace(b'{"model":"served"}')
    assert stream.done


def test_a_body_that_cannot_be_rewritten_is_refused_in_the_paths_shape() -> None:
    """The client reads why, in its own error object."""
    stream = stream_of(REWRITTEN)
    stream.on_headers(facts(path="/v1/messages"))

    reply = stream.on_body(b"[]")

    assert isinstance(reply, Refuse)
    assert reply.error.refusal is Refusal.BAD_REQUEST
    assert reply.shape is ErrorShape.ANTHROPIC
    assert stream.done


@pytest.mark.parametrize(
    "events", ["b", "hh", "hb", "rhh", "rhbb", "rhbh"], ids=lambda events: f"events {events}"
)
def test_an_event_that_was_not_asked_for_ends_the_stream(events: str) -> None:
    """h: headers, b: body. With r first a rewrite is wanted. Only the last event is illegal."""
    stream = stream_of(REWRITTEN if events.startswith("r") else PLAIN)
    feed = {"h": lambda: stream.on_headers(facts()), "b": lambda: stream.on_body(b"{}")}
    *legal, wrong = events.removeprefix("r")
    for event in legal:
        feed[event]()

    with pytest.raises(UnexpectedMessageError):
        feed[wrong]()

    assert stream.done


@pytest.mark.parametrize("rewrite", [None, Rewrite("served", force_usage=False)])
def test_a_counted_answer_goes_on_to_its_last_chunk(rewrite: Rewrite | None) -> None:
    """The stream is not done when its request is decided."""
    stream = counting_stream(rewrite)
    assert (stream.request_done, stream.done) == (True, False)

    assert stream.on_answer_headers(STREAMED, False) == AnswerBegin(
        {UsageKey.STATUS: "200"}, True, False
    )
    assert stream.on_answer_body(EVENT[:20], False) == AnswerChunk(b"", {UsageKey.EVENTS: "0"})
    chunk = stream.on_answer_body(EVENT[20:], False)
    assert chunk.body == b'data: {"choices":[{"index":0}]}\n\n'
    assert (chunk.usage[UsageKey.PROMPT], chunk.usage[UsageKey.COMPLETION]) == ("3", "1")
    assert not stream.done
    assert stream.on_answer_body(b"", True).usage == {UsageKey.EVENTS: "1"}
    assert stream.done


def test_a_counted_answer_may_end_with_trailers() -> None:
    stream = counting_stream()
    stream.on_answer_headers(AnswerHead(200, "application/json", None), False)
    stream.on_answer_body(b'{"usage":{"prompt_tokens":3,"completion_tokens":1}}', False)

    assert stream.on_answer_trailers() == AnswerEnd(
        {
            UsageKey.PROMPT: "3",
            UsageKey.COMPLETION: "1",
            UsageKey.COMPLETE: "1",
        }
    )
    assert stream.done


@pytest.mark.parametrize(("status", "is_last"), [(404, False), (500, False), (200, True)])
def test_of_an_error_and_of_an_empty_answer_the_headers_are_all(status: int, is_last: bool) -> None:
    """An error costs nothing, whatever its body says."""
    stream = counting_stream()

    begin = stream.on_answer_headers(AnswerHead(status, "application/json", None), is_last)

    assert begin.usage[UsageKey.STATUS] == str(status)
    assert begin.is_all
    assert stream.done


@pytest.mark.parametrize("decision", [Answer(Api.MODELS, b"{}"), PLAIN], ids=["answer", "proxy"])
def test_nothing_is_counted_that_was_not_admitted_here(decision: RequestDecision) -> None:
    """Headgate's own answer ends the stream; without `wants_answer` an admission does, too."""
    stream = stream_of(decision, wants_answer=isinstance(decision, Answer))
    stream.on_headers(facts())

    assert stream.done
    with pytest.raises(UnexpectedMessageError):
        stream.on_answer_headers(STREAMED, False)


def test_an_answer_s_events_come_in_their_order() -> None:
    """Envoy sends no chunk before the headers, and neither headers nor the end twice."""
    for wrong in (
        lambda stream: stream.on_answer_body(b"", False),
        lambda stream: stream.on_answer_trailers(),
        lambda stream: [stream.on_answer_headers(STREAMED, False) for _ in range(2)],
        lambda stream: stream.on_body(b"{}"),
    ):
        with pytest.raises(UnexpectedMessageError):
            wrong(counting_stream())


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached_and_can_end(state: State) -> None:
    """The table has no state that a stream cannot enter, or cannot leave."""
    edges = {(current, following) for (current, _), following in TRANSITIONS.items()}

    assert state in _reached(State.HEADERS, edges)
    assert State.DONE in _reached(state, edges)


def test_every_event_is_legal_somewhere_and_nothing_follows_the_end() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert State.DONE not in {state for state, _ in TRANSITIONS}


def _reached(start: State, edges: set[tuple[State, State]]) -> set[State]:
    reached = {start}
    for _ in State:
        reached |= {following for current, following in edges if current in reached}
    return reached
