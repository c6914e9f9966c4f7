"""The charge of a request once its answer has ended: one rule for every settlement.

The rate-limit service settles when the stream ends. The access log settles again, in case that
call was lost. Both read the same metadata and must get the same number.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from headgate.core.contract import ABANDONED_YES, ABSENT, LimitsKey, UsageKey

_MAX_TOKENS = 2**53
_COUNTS = frozenset(UsageKey) - {UsageKey.COMPLETE, UsageKey.ERROR, UsageKey.ABANDONED}


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """The usage of one answer, as it was counted; None for a number that was not seen.

    `status` is the upstream's HTTP status, None if no upstream answered. `events` is the number of
    events with output in a stream. `seconds` is the length of the audio. `ttft_ms` is vLLM's own
    time to the first token of a whole answer. `abandoned`: the upstream had the request, and before
    any answer the client disconnected or Envoy's time was up.
    """

    status: int | None = None
    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    seconds: int | None = None
    events: int = 0
    complete: bool = False
    error: bool = False
    first_event_ms: int | None = None
    ttft_ms: int | None = None
    abandoned: bool = False


class Estimate(Struct, frozen=True, gc=False):
    """The tokens reserved at admission: the total, and the prompt's part of it.

    `per_second` is the price of a second of audio in tokens, None if the price is not by length.
    """

    tokens: int
    prompt: int
    per_second: int | None = None

    @property
    def seconds(self) -> int | None:
        """The seconds of audio that it holds; None where they do not count.

        A stream has no seconds, as vLLM tells its tokens only. Of audio, it alone holds output.
        """
        if not self.per_second or self.tokens > self.prompt:
            return None
        return -(-self.prompt // self.per_second)


class Source(StrEnum):
    """The origin of the charged numbers."""

    USAGE = "usage"
    PARTIAL = "partial"
    ESTIMATE = "estimate"
    REFUND = "refund"


class Charge(Struct, frozen=True, gc=False):
    """The tokens that a request is charged, and why. A refund charges no request either.

    `cached` is the part of `prompt` that came from vLLM's prefix cache. `seconds` is the length of
    audio that is charged by its length, else None.
    """

    prompt: int
    completion: int
    source: Source
    cached: int = 0
    seconds: int | None = None

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def requests(self) -> int:
        return 0 if self.source is Source.REFUND else 1


def charge(usage: Usage, estimate: Estimate) -> Charge:
    """The charge of a finished request.

    - Before any answer, while vLLM worked on it, the client disconnected or Envoy's time was up
      (its 504): the prompt's estimate.
    - Otherwise no upstream answer, or a status that carries none: a full refund.
    - Usage was seen: the actual tokens, or for audio its seconds at their price.
    - Complete without usage: the estimate.
    - Cut off before its usage came: the prompt if known, else its estimate, and one token for each
      event with output.

    Where the prompt's estimate is charged, so are the seconds that it stands for.
    """
    if usage.abandoned and usage.status in (None, 504):
        return Charge(estimate.prompt, 0, Source.PARTIAL, seconds=estimate.seconds)
    if not _is_answer(usage.status):
        return Charge(0, 0, Source.REFUND)
    cached, seconds = usage.cached or 0, usage.seconds
    if usage.prompt is not None and usage.completion is not None:
        return _charge(usage.prompt, usage.completion, Source.USAGE, cached, seconds)
    if seconds is not None and estimate.per_second is not None:
        tokens = min(seconds * estimate.per_second, _MAX_TOKENS - 1)
        return _charge(tokens, 0, Source.USAGE, 0, seconds)
    prompt, seconds = usage.prompt, None
    if prompt is None:
        prompt, seconds = estimate.prompt, estimate.seconds
    if usage.complete and not usage.error:
        completion = max(0, estimate.tokens - estimate.prompt)
        return _charge(prompt, completion, Source.ESTIMATE, cached, seconds)
    completion = usage.events if usage.completion is None else usage.completion
    return _charge(prompt, completion, Source.PARTIAL, cached, seconds)


def _charge(
    prompt: int, completion: int, source: Source, cached: int, seconds: int | None
) -> Charge:
    return Charge(prompt, completion, source, min(cached, prompt), seconds)


def _is_answer(status: int | None) -> bool:
    """Whether a status comes with an answer. Only 2xx does, without 204 and 205, which have no body
    (RFC 9110). A model API redirects or switches protocols only before it has worked."""
    return status is not None and 200 <= status < 300 and status not in (204, 205)


def read_usage(values: Mapping[str, str], abandoned: bool | None = None) -> Usage:
    """Reads the strings of `Namespace.USAGE`. An absent or malformed number counts as not seen.

    `abandoned` is given by a caller who knows it; None reads it from `values`.
    """
    if abandoned is None:
        abandoned = values.get(UsageKey.ABANDONED) == ABANDONED_YES
    counts: dict[str, int | None] = {}
    for key, text in values.items():
        if key in _COUNTS:
            counts[key] = read_count(text)
    return Usage(
        status=counts.get(UsageKey.STATUS),
        prompt=counts.get(UsageKey.PROMPT),
        completion=counts.get(UsageKey.COMPLETION),
        cached=counts.get(UsageKey.CACHED),
        reasoning=counts.get(UsageKey.REASONING),
        seconds=counts.get(UsageKey.SECONDS),
        events=counts.get(UsageKey.EVENTS) or 0,
        complete=values.get(UsageKey.COMPLETE) == "1",
        error=values.get(UsageKey.ERROR) == "1",
        first_event_ms=counts.get(UsageKey.FIRST_EVENT_MS),
        ttft_ms=counts.get(UsageKey.TTFT_MS),
        abandoned=abandoned,
    )


def read_count(text: str | None) -> int | None:
    """A non-negative decimal integer below 2**53; None for anything else."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16:
        return None
    number = int(text)
    return number if number < _MAX_TOKENS else None


def read_held_by(values: Mapping[str, str]) -> str:
    """The replica that holds a request; empty if no replica is named, as by older proxies."""
    value = values.get(LimitsKey.HELD_BY, ABSENT)
    return "" if value == ABSENT else value
