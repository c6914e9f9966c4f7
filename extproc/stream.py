"""One ext_proc stream as a state machine without I/O: headers, then perhaps the body, done."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from extproc.decide import Admit, Decision, Refuse, RequestFacts
from extproc.splice import Rewrite, SpliceError, rewrite_body
from headgate.apis import ErrorShape, error_shape_of
from headgate.errors import ApiError, Refusal


@dataclass(frozen=True, slots=True)
class Replace:
    """The body goes on as these bytes."""

    body: bytes


Reply = Decision | Replace


class UnexpectedMessageError(Exception):
    """Envoy sent what was not asked for; the request must not go on."""


class _State(Enum):
    HEADERS = auto()
    BODY = auto()
    DONE = auto()


class RequestStream:
    """Takes the events of one request in order and returns the reply to each.

    HEADERS --headers--> DONE, or BODY where the body must be rewritten; BODY --body--> DONE.
    Any other event raises UnexpectedMessageError and leaves the stream done.
    """

    def __init__(self, decide: Callable[[RequestFacts], Decision]) -> None:
        self._decide = decide
        self._state = _State.HEADERS
        self._shape = ErrorShape.OPENAI
        self._rewrite: Rewrite | None = None

    @property
    def done(self) -> bool:
        """Whether the last reply was the stream's last."""
        return self._state is _State.DONE

    def on_headers(self, facts: RequestFacts) -> Decision:
        """The request's headers, with what else Envoy knows by then."""
        self._expect(_State.HEADERS)
        decision = self._decide(facts)
        if isinstance(decision, Admit) and decision.rewrite is not None:
            self._state = _State.BODY
            self._shape = error_shape_of(facts.path)
            self._rewrite = decision.rewrite
        return decision

    def on_body(self, body: bytes) -> Replace | Refuse:
        """The whole request body, which comes only when it was asked for."""
        self._expect(_State.BODY)
        assert self._rewrite is not None  # noqa: S101 (the state BODY has one)
        try:
            return Replace(rewrite_body(body, self._rewrite))
        except SpliceError as error:
            refusal = ApiError(Refusal.BAD_REQUEST, str(error), error.param)
            return Refuse(refusal, self._shape)

    def _expect(self, state: _State) -> None:
        """Every event ends the stream, unless its reply asks for more."""
        current, self._state = self._state, _State.DONE
        if current is not state:
            raise UnexpectedMessageError(f"unexpected message in state {current.name}")
