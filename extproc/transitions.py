"""Every state of an ext_proc stream and every legal transition, in one table.

    HEADERS > DECIDING > BODY > REWRITING > ANSWER_HEADERS > ANSWER_BODY > DONE

A request skips BODY if nothing in it must change and no answer is kept. It is DONE before its
answer if it is not admitted, if its answer was kept, or if the answer is counted elsewhere.
"""

from enum import Enum, auto


class UnexpectedMessageError(Exception):
    """Envoy sent a message that was not asked for; the request must not go on."""


class State(Enum):
    """The message that the stream waits for, or the work that it is doing."""

    HEADERS = auto()
    DECIDING = auto()
    BODY = auto()
    REWRITING = auto()
    ANSWER_HEADERS = auto()
    ANSWER_BODY = auto()
    DONE = auto()

    __hash__ = object.__hash__  # the table is read for each chunk, and Enum's own hash is slow


class Event(Enum):
    """A message of Envoy's, or the result of the work on one."""

    REQUEST_HEADERS = auto()
    REQUEST_BODY = auto()
    BODY_WANTED = auto()
    """The body must change, or its answer may have been kept."""
    ANSWER_WANTED = auto()
    DECIDED = auto()
    """The last reply is known, and no more of the request or its answer must come here."""
    ANSWER_BEGINS = auto()
    ANSWER_WITHOUT_BODY = auto()
    """The answer's headers, after which no body is needed."""
    CHUNK = auto()
    LAST_CHUNK = auto()
    TRAILERS = auto()

    __hash__ = object.__hash__


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.HEADERS, Event.REQUEST_HEADERS): State.DECIDING,
    (State.DECIDING, Event.BODY_WANTED): State.BODY,
    (State.DECIDING, Event.ANSWER_WANTED): State.ANSWER_HEADERS,
    (State.DECIDING, Event.DECIDED): State.DONE,
    (State.BODY, Event.REQUEST_BODY): State.REWRITING,
    (State.REWRITING, Event.ANSWER_WANTED): State.ANSWER_HEADERS,
    (State.REWRITING, Event.DECIDED): State.DONE,
    (State.ANSWER_HEADERS, Event.ANSWER_BEGINS): State.ANSWER_BODY,
    (State.ANSWER_HEADERS, Event.ANSWER_WITHOUT_BODY): State.DONE,
    (State.ANSWER_BODY, Event.CHUNK): State.ANSWER_BODY,
    (State.ANSWER_BODY, Event.LAST_CHUNK): State.DONE,
    (State.ANSWER_BODY, Event.TRAILERS): State.DONE,
}

REQUEST_STATES = frozenset({State.HEADERS, State.DECIDING, State.BODY, State.REWRITING})
"""The states before the request has its last reply."""
