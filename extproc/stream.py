"""One ext_proc stream as a state machine without I/O: the request's headers, perhaps its body,
and, where the service counts, the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from extproc.asked import ClientUsage
from extproc.counting.counter import AnswerHead, Counted, Counter, Request
from extproc.decide import Admit, Decision, Refuse, RequestFacts
from extproc.form import FormRewrite, rewrite_form
from extproc.splice import Rewrite, SpliceError, rewrite_body
from headgate.core.apis import Api, ErrorShape, error_shape_of
from headgate.core.contract import AdmissionKey, UsageKey
from headgate.core.errors import ApiError, Refusal


@dataclass(frozen=True, slots=True)
class Replace:
    """The body goes on as these bytes."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """The answer's headers go on, without their content-length if `drops_length`; with `is_all`
    the rest of it is not to come here."""

    usage: Mapping[UsageKey, str]
    drops_length: bool
    is_all: bool


@dataclass(frozen=True, slots=True)
class End:
    """The answer's trailers go on."""

    usage: Mapping[UsageKey, str]


Reply = Decision | Replace
"""To the events of a request."""
AnswerReply = Begin | Counted | End
"""To the events of its answer."""


class UnexpectedMessageError(Exception):
    """Envoy sent what was not asked for; the request must not go on."""


class _State(Enum):
    HEADERS = auto()
    BODY = auto()
    ANSWER_HEADERS = auto()
    ANSWER_BODY = auto()
    DONE = auto()


class RequestStream:
    """Takes the events of one request in order and returns the reply to each.

    HEADERS --headers--> BODY where the body must be rewritten, else decided; BODY --body-->
    decided. An admitted request whose answer is counted here goes on: ANSWER_HEADERS --headers-->
    ANSWER_BODY --chunks--> and with the last of them or trailers DONE. Any other is DONE once it
    is decided. Any other event raises UnexpectedMessageError and leaves the stream done.
    """

    def __init__(
        self,
        decide: Callable[[RequestFacts], Decision],
        now_ms: Callable[[], int],
        counts: bool,
    ) -> None:
        self._decide = decide
        self._now_ms = now_ms
        self._counts = counts
        self._counted: Request | None = None
        self._counter: Counter | None = None
        self._state = _State.HEADERS
        self._shape = ErrorShape.OPENAI
        self._rewrite: Rewrite | FormRewrite | None = None

    @property
    def done(self) -> bool:
        """Whether the last reply was the stream's last."""
        return self._state is _State.DONE

    @property
    def decided(self) -> bool:
        """Whether the request has all its replies: what comes now is of its answer."""
        return self._state not in (_State.HEADERS, _State.BODY)

    @property
    def counts(self) -> bool:
        """Whether the answer of an admitted request is to come here."""
        return self._counts

    @property
    def held_bytes(self) -> int:
        """How much of the answer is held."""
        return 0 if self._counter is None else self._counter.held_bytes

    def on_headers(self, facts: RequestFacts) -> Decision:
        """The request's headers, with what else Envoy knows by then."""
        self._expect(_State.HEADERS)
        decision = self._decide(facts)
        if isinstance(decision, Admit):
            if self._counts:
                self._counted = _request(decision.admission)
                self._state = _State.ANSWER_HEADERS
            if decision.rewrite is not None:
                self._state = _State.BODY
                self._shape = error_shape_of(facts.path)
                self._rewrite = decision.rewrite
        return decision

    def on_body(self, body: bytes) -> Replace | Refuse:
        """The whole request body, which comes only when it was asked for."""
        self._expect(_State.BODY)
        assert self._rewrite is not None  # noqa: S101 (the state BODY has one)
        try:
            replaced = Replace(_rewritten(body, self._rewrite))
        except SpliceError as error:
            refusal = ApiError(Refusal.BAD_REQUEST, str(error), error.param)
            return Refuse(refusal, self._shape)
        if self._counted is not None:
            self._state = _State.ANSWER_HEADERS
        return replaced

    def on_answer_headers(self, head: AnswerHead, is_last: bool) -> Begin:
        """The answer's headers; `is_last` if it has no body. An error costs nothing whatever its
        body says, so that is not waited for."""
        self._expect(_State.ANSWER_HEADERS)
        assert self._counted is not None  # noqa: S101 (the state has one)
        counter = Counter(self._counted, head, self._now_ms)
        usage = counter.begin()
        is_all = is_last or (head.status or 0) >= 400
        if is_all:
            usage |= counter.end()
        else:
            self._counter = counter
            self._state = _State.ANSWER_BODY
        return Begin(usage, counter.alters, is_all)

    def on_answer_body(self, chunk: bytes, is_last: bool) -> Counted:
        """The next bytes of the answer."""
        self._expect(_State.ANSWER_BODY)
        assert self._counter is not None  # noqa: S101 (the state has one)
        if not is_last:
            self._state = _State.ANSWER_BODY
        return self._counter.feed(chunk, is_last)

    def on_answer_trailers(self) -> End:
        """The answer ends with trailers, not with a chunk that says so."""
        self._expect(_State.ANSWER_BODY)
        assert self._counter is not None  # noqa: S101 (the state has one)
        return End(self._counter.end())

    def _expect(self, state: _State) -> None:
        """Every event ends the stream, unless its reply asks for more."""
        current, self._state = self._state, _State.DONE
        if current is not state:
            raise UnexpectedMessageError(f"unexpected message in state {current.name}")


def _rewritten(body: bytes, rewrite: Rewrite | FormRewrite) -> bytes:
    if isinstance(rewrite, FormRewrite):
        return rewrite_form(body, rewrite)
    return rewrite_body(body, rewrite)


def _request(admission: Mapping[AdmissionKey, str]) -> Request:
    return Request(
        Api(admission[AdmissionKey.API]),
        ClientUsage(admission[AdmissionKey.CLIENT_USAGE]),
        int(admission[AdmissionKey.CHOICES]),
        AdmissionKey.PER_SECOND in admission,
    )
