"""One ext_proc stream as a state machine without I/O.

Its events are the request's headers, its body if it must change, and the answer if it is counted
here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extproc.counting.counter import (
    AnswerChunk,
    AnswerContext,
    AnswerCounter,
    AnswerHead,
    PassedAnswer,
)
from extproc.counting.names import ModelNames
from extproc.form import rewrite_form
from extproc.splice import SpliceError, rewrite_body
from extproc.transitions import REQUEST_STATES, TRANSITIONS, Event, State, UnexpectedMessageError
from extproc.types import (
    Admit,
    ClientUsage,
    FormRewrite,
    Refuse,
    RequestDecision,
    RequestFacts,
    Rewrite,
    Value,
)
from headgate.core.apis import Api, door_of
from headgate.core.auto import MODEL_HEADER
from headgate.core.contract import AdmissionKey, RequestKey, UsageKey
from headgate.core.errors import ApiError, Refusal


@dataclass(frozen=True, slots=True)
class Replace:
    """The request goes on with these bytes as its body."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The request goes on with its body as it came."""


@dataclass(frozen=True, slots=True)
class AnswerBegin:
    """The answer's headers go on, without their content-length if `drops_length`.

    With `is_all` the rest of the answer must not come here. It gets these `headers` more.
    """

    usage: Mapping[UsageKey, str]
    drops_length: bool
    is_all: bool
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The answer's trailers go on."""

    usage: Mapping[UsageKey, str]


RequestReply = RequestDecision | Replace | Unchanged
"""A reply to an event of the request."""
AnswerReply = AnswerBegin | AnswerChunk | AnswerEnd
"""A reply to an event of the answer."""


class RequestStream:
    """Takes the events of one request in order and returns the reply to each.

    With `wants_answer` an admitted request goes on with its answer. `now_ms` is the Unix time. An
    event that `TRANSITIONS` does not allow raises UnexpectedMessageError and leaves the stream
    done.
    """

    # Each is set by the transition into the state that reads it.
    _path: str
    _chosen: tuple[tuple[str, str], ...]
    _rewrite: Rewrite | FormRewrite | None
    _admission: Mapping[AdmissionKey, str]
    _counter: AnswerCounter | PassedAnswer

    def __init__(
        self,
        decide: Callable[[RequestFacts], RequestDecision],
        now_ms: Callable[[], int],
        wants_answer: bool,
    ) -> None:
        self._decide = decide
        self._now_ms = now_ms
        self._wants_answer = wants_answer
        self._state = State.HEADERS
        self._caches = False
        self._records = False
        self._request_id = ""

    @property
    def done(self) -> bool:
        """Whether the last reply was the stream's last."""
        return self._state is State.DONE

    @property
    def request_done(self) -> bool:
        """Whether the request has all its replies: every later event is of its answer."""
        return self._state not in REQUEST_STATES

    @property
    def request_id(self) -> str:
        """Envoy's id of the request, empty if it has sent none."""
        return self._request_id

    @property
    def wants_answer(self) -> bool:
        """Whether the answer of an admitted request must come here."""
        return self._wants_answer

    @property
    def held_bytes(self) -> int:
        """How much of the answer is held back."""
        return self._counter.held_bytes if self._state is State.ANSWER_BODY else 0

    def on_headers(self, facts: RequestFacts) -> RequestDecision:
        """The request's headers, and the metadata of the filters before this one."""
        self._move(Event.REQUEST_HEADERS)
        self._request_id = facts.request_id
        decision = self._decide(facts)
        if not isinstance(decision, Admit):
            self._move(Event.DECIDED)
            return decision
        self._admission = decision.admission
        self._chosen = _chosen_model(facts.values, decision.admission)
        self._caches = decision.caching is not None
        if decision.rewrite is not None or self._caches:
            self._path, self._rewrite = facts.path, decision.rewrite
            self._move(Event.BODY_WANTED)
        else:
            self._move_to_answer()
        return decision

    def on_body(self, body: bytes) -> Replace | Unchanged | Refuse:
        """The whole request body, which comes for a rewrite or for the answer cache.

        With the cache the request waits for `on_kept_answer` or `on_no_answer`.
        """
        self._move(Event.REQUEST_BODY)
        try:
            reply = _rewritten(body, self._rewrite)
        except SpliceError as error:
            self._move(Event.DECIDED)
            refusal = ApiError(Refusal.BAD_REQUEST, str(error), error.param)
            return Refuse(refusal, door_of(self._path).shape)
        if not self._caches:
            self._move_to_answer()
        return reply

    def on_no_answer(self, records: bool) -> None:
        """No answer was kept. The one of the model comes here if the cache `records` it."""
        self._records = records
        self._move_to_answer()

    def on_kept_answer(self, head: AnswerHead, body: bytes) -> AnswerChunk:
        """An answer was kept: what the client sees of it, and its usage if it is counted here."""
        self.end_request()
        counter = self._counter_of(head)
        usage = counter.begin()
        chunk = counter.feed(body, is_last=True)
        return AnswerChunk(chunk.body, usage | chunk.usage)

    def end_request(self) -> None:
        """The request ends here, after its body."""
        self._move(Event.DECIDED)

    @property
    def model_header(self) -> tuple[tuple[str, str], ...]:
        """The header that names the model which `auto` has chosen; none where the tap adds it."""
        return self._chosen if self._wants_answer else ()

    def on_answer_headers(
        self, head: AnswerHead, is_last: bool, records: bool = False
    ) -> AnswerBegin:
        """The answer's headers; `is_last` if it has no body.

        An error costs nothing whatever its body says. Its body is asked for only if it may have
        vLLM's name of the model. Any body is asked for that the cache `records`.
        """
        is_error = (head.status or 0) >= 400
        is_counted = self._wants_answer and not (
            is_error and AdmissionKey.SERVED_AS not in self._admission
        )
        is_all = is_last or not (is_counted or records)
        self._move(Event.ANSWER_WITHOUT_BODY if is_all else Event.ANSWER_BEGINS)
        counter = self._counter = self._counter_of(head)
        usage = counter.begin()
        if is_all:
            usage |= counter.end()
        return AnswerBegin(usage, counter.alters, is_all, self.model_header)

    def on_answer_body(self, chunk: bytes, is_last: bool, records: bool = False) -> AnswerChunk:
        """The next bytes of the answer. Where only the cache has recorded it, and does so no more,
        the rest need not come here."""
        ends = is_last or not (self._wants_answer or records)
        self._move(Event.LAST_CHUNK if ends else Event.CHUNK)
        return self._counter.feed(chunk, is_last)

    def on_answer_trailers(self) -> AnswerEnd:
        """The answer ends with trailers, so no chunk was marked as the last."""
        self._move(Event.TRAILERS)
        return AnswerEnd(self._counter.end())

    def _move_to_answer(self) -> None:
        wants = self._wants_answer or self._records
        self._move(Event.ANSWER_WANTED if wants else Event.DECIDED)

    def _counter_of(self, head: AnswerHead) -> AnswerCounter | PassedAnswer:
        if not self._wants_answer:
            return PassedAnswer()
        return AnswerCounter(_context(self._admission), head, self._now_ms)

    def _move(self, event: Event) -> None:
        """The only place that changes the state."""
        state = TRANSITIONS.get((self._state, event))
        if state is None:
            current, self._state = self._state, State.DONE
            raise UnexpectedMessageError(f"unexpected {event.name} in state {current.name}")
        self._state = state


def _chosen_model(
    values: Mapping[str, Value], admission: Mapping[AdmissionKey, str]
) -> tuple[tuple[str, str], ...]:
    """The header with the model that `auto` has chosen; none if the client named it itself."""
    asked, model = values.get(RequestKey.MODEL), admission.get(AdmissionKey.MODEL)
    return () if model is None or asked in (None, model) else ((MODEL_HEADER, model),)


def _rewritten(body: bytes, rewrite: Rewrite | FormRewrite | None) -> Replace | Unchanged:
    if rewrite is None:
        return Unchanged()
    if isinstance(rewrite, FormRewrite):
        return Replace(rewrite_form(body, rewrite))
    return Replace(rewrite_body(body, rewrite))


def _context(admission: Mapping[AdmissionKey, str]) -> AnswerContext:
    return AnswerContext(
        Api(admission[AdmissionKey.API]),
        ClientUsage(admission[AdmissionKey.CLIENT_USAGE]),
        int(admission[AdmissionKey.CHOICES]),
        AdmissionKey.PER_SECOND in admission,
        _names(admission),
    )


def _names(admission: Mapping[AdmissionKey, str]) -> ModelNames | None:
    served_as = admission.get(AdmissionKey.SERVED_AS)
    if served_as is None:
        return None
    return ModelNames(admission[AdmissionKey.MODEL].encode(), served_as.encode())
