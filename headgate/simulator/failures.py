"""Failures on demand: for one request by its header `x-simulate`, for all by POST /simulate.

The header holds `word=number` pairs, separated by commas. POST /simulate takes a JSON object of the
same words, for all later inference requests until DELETE /simulate. GET /simulate shows it.
A request's own header wins, word by word.

- status=N: answers N (400 to 599) with an error object, before anything else.
- hang_up=S: waits S seconds, then closes the connection without an answer.
- headers_delay=S: waits S seconds before the answer's headers, as a request in the queue does.
- ttft=S: seconds to the first token, instead of the server's setting.
- interval=S: seconds from token to token, instead of the server's setting.
- output_tokens=N: the model stops by itself after N tokens, if the maximum does not come first.
- stall_after=N: sends N events, then nothing more; the connection stays open.
- cut_after=N: sends N events, then the connection is closed in the middle of the answer.
- reset_after=N: sends N events, then resets the connection (TCP RST).
- error_after=N: sends N events, then ends as vLLM does when its engine dies.

An event is one SSE event, the first role chunk included. An answer that is not streamed has none.
There, stall never answers, cut and reset break off in the middle of the body, and error answers
500. A request can have only one of stall, cut, reset and error.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from headgate.simulator.vllm_errors import VllmError

Break = Literal["stall", "cut", "reset", "error"]
_BREAKS: tuple[Break, ...] = ("stall", "cut", "reset", "error")
_MAX_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The failures of a request; None is no failure."""

    status: int | None = None
    hang_up: float | None = None
    headers_delay: float | None = None
    ttft: float | None = None
    interval: float | None = None
    output_tokens: int | None = None
    stall_after: int | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    error_after: int | None = None

    @property
    def breaks(self) -> tuple[Break, int] | None:
        """How the answer breaks, and after how many events."""
        for kind in _BREAKS:
            events = getattr(self, f"{kind}_after")
            if events is not None:
                return kind, events
        return None

    def words(self) -> dict[str, float]:
        """The words that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def overridden_by(self, own: "Simulation") -> "Simulation":
        """This one, with the words of `own` in place of the same words here."""
        words = self.words()
        if own.breaks:
            words = {name: value for name, value in words.items() if not _is_break(name)}
        return Simulation(**(words | own.words()))  # type: ignore[arg-type]


ALLOWED_WORDS = tuple(field.name for field in fields(Simulation))


def parse_header(text: str) -> Simulation:
    """The `x-simulate` header's value; "" is no failure. VllmError 400 names what is wrong."""
    words: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals:
            raise _wrong(f"{pair!r} is not word=number")
        if name.strip() in words:
            raise _wrong(f"{name.strip()!r} is given twice")
        words[name.strip()] = value.strip()
    return parse_words(words)


def parse_words(words: Mapping[str, Any]) -> Simulation:
    """The same from a mapping of words to numbers, or to text that holds a number."""
    values: dict[str, Any] = {}
    for name, value in words.items():
        if name not in ALLOWED_WORDS:
            raise _wrong(f"unknown word {name!r}")
        values[name] = _number(name, value)
    if sum(_is_break(name) for name in values) > 1:
        raise _wrong("only one of stall_after, cut_after, reset_after, error_after is possible")
    return Simulation(**values)


def _number(name: str, value: object) -> float:
    seconds = name in ("hang_up", "headers_delay", "ttft", "interval")
    low, high = (400, 599) if name == "status" else (int(name == "output_tokens"), 10**9)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value) if seconds else int(str(value))
    except ValueError as error:
        raise _wrong(f"{name}={value!r} is not {'a' if seconds else 'a whole'} number") from error
    if seconds and not 0 <= number <= _MAX_S:
        raise _wrong(f"{name}={value} is not between 0 and {_MAX_S:.0f} seconds")
    if not seconds and not low <= number <= high:
        raise _wrong(f"{name}={value} is not between {low} and {high}")
    return number


def _is_break(name: str) -> bool:
    return name in (f"{kind}_after" for kind in _BREAKS)


def _wrong(problem: str) -> VllmError:
    message = f"x-simulate: {problem}. Allowed words: {', '.join(ALLOWED_WORDS)}."
    return VllmError(400, "BadRequestError", message, "x-simulate")
