"""One stream: headers, then the body if it was asked for, and nothing else."""

import pytest

from extproc.decide import Admit, Answer, Decision, Refuse, RequestFacts
from extproc.splice import Rewrite
from extproc.stream import Replace, RequestStream, UnexpectedMessageError
from headgate.apis import Api, ErrorShape
from headgate.errors import Refusal
from tests.extproc.builders import facts

PLAIN = Admit({}, {}, None)
REWRITTEN = Admit({}, {}, Rewrite("served", force_usage=False))


def stream_of(decision: Decision) -> RequestStream:
    def decide(_: RequestFacts) -> Decision:
        return decision

    return RequestStream(decide)


@pytest.mark.parametrize("decision", [PLAIN, Answer(Api.MODELS, b"{}")])
def test_one_reply_is_all_when_nothing_is_rewritten(decision: Decision) -> None:
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
def test_what_was_not_asked_for_ends_the_stream(events: str) -> None:
    """h: headers, b: body, r first: a rewrite is wanted. The last event is the wrong one."""
    stream = stream_of(REWRITTEN if events.startswith("r") else PLAIN)
    feed = {"h": lambda: stream.on_headers(facts()), "b": lambda: stream.on_body(b"{}")}
    *legal, wrong = events.removeprefix("r")
    for event in legal:
        feed[event]()

    with pytest.raises(UnexpectedMessageError):
        feed[wrong]()

    assert stream.done
