"""What one request is charged once its answer has ended. One rule for all who settle.

The rate-limit service settles at stream end and the access log settles again in case
that call was lost; both read the same metadata and must come to the same number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from headgate.core.contract import LEFT_YES, UsageKey

_MAX_TOKENS = 2**53


@dataclass(frozen=True, slots=True)
class Usage:
    """What the tap saw of one answer; None where nothing was seen.

    `status` is the upstream's HTTP status, None when no upstream answered. `events`
    counts the events with output of a stream. `seconds` is how long the audio was.
    `left`: the upstream had the request, and its client left before any answer.
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
    left: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """The tokens held at admission: all of them, and the prompt's part.

    `per_second` is what a second of audio costs in tokens, None where that is not the price.
    """

    tokens: int
    prompt: int
    per_second: int | None = None


class Source(StrEnum):
    """Where the charged numbers come from."""

    USAGE = "usage"
    PARTIAL = "partial"
    ESTIMATE = "estimate"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class Charge:
    """The tokens one request is charged, and why. A refund does not even charge the request.

    `cached` is the part of `prompt` that came from vLLM's prefix cache.
    """

    prompt: int
    completion: int
    source: Source
    cached: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def requests(self) -> int:
        return 0 if self.source is Source.REFUND else 1


def charge(usage: Usage, estimate: Estimate) -> Charge:
    """Decides what a finished request costs.

    Left by its client before any answer, as vLLM worked on it: the prompt's estimate. Else no
    upstream answer or an error status: a full refund. Usage seen: the actual tokens, or of
    audio its seconds at their price.
    Cut off before its usage came: what is known of the prompt (else its estimate) and one
    token for each event seen. Complete without usage: the estimate stands.
    """
    if usage.status is None and usage.left:
        return Charge(estimate.prompt, 0, Source.PARTIAL)
    if usage.status is None or usage.status >= 400:
        return Charge(0, 0, Source.REFUND)
    if usage.prompt is not None and usage.completion is not None:
        return Charge(usage.prompt, usage.completion, Source.USAGE, _cached(usage, usage.prompt))
    if usage.seconds is not None and estimate.per_second is not None:
        return Charge(min(usage.seconds * estimate.per_second, _MAX_TOKENS - 1), 0, Source.USAGE)
    if usage.complete and not usage.error:
        prompt = estimate.prompt if usage.prompt is None else usage.prompt
        completion = max(0, estimate.tokens - estimate.prompt)
        return Charge(prompt, completion, Source.ESTIMATE, _cached(usage, prompt))
    prompt = estimate.prompt if usage.prompt is None else usage.prompt
    completion = usage.events if usage.completion is None else usage.completion
    return Charge(prompt, completion, Source.PARTIAL, _cached(usage, prompt))


def _cached(usage: Usage, prompt: int) -> int:
    return min(usage.cached or 0, prompt)


def read_usage(values: Mapping[str, str]) -> Usage:
    """Reads the tap's strings. What is absent or is not a plain number counts as not seen."""
    return Usage(
        status=read_count(values.get(UsageKey.STATUS)),
        prompt=read_count(values.get(UsageKey.PROMPT)),
        completion=read_count(values.get(UsageKey.COMPLETION)),
        cached=read_count(values.get(UsageKey.CACHED)),
        reasoning=read_count(values.get(UsageKey.REASONING)),
        seconds=read_count(values.get(UsageKey.SECONDS)),
        events=read_count(values.get(UsageKey.EVENTS)) or 0,
        complete=values.get(UsageKey.COMPLETE) == "1",
        error=values.get(UsageKey.ERROR) == "1",
        first_event_ms=read_count(values.get(UsageKey.FIRST_EVENT_MS)),
        left=values.get(UsageKey.LEFT) == LEFT_YES,
    )


def read_count(text: str | None) -> int | None:
    """A non-negative decimal integer below 2**53, or None for anything else."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16:
        return None
    number = int(text)
    return number if number < _MAX_TOKENS else None
