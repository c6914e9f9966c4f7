"""The `x-ratelimit-*` headers that tell a client its limits, and the message of a 429.

The header names and the format of the reset times are OpenAI's, which its client libraries know.
"""

from collections.abc import Iterable
from math import ceil

from headgate.core.amounts import written
from headgate.core.errors import retry_headers
from headgate.core.policy import (
    Count,
    CountedRequests,
    Each,
    Limit,
    Measure,
    PricedTokens,
    Slots,
    Smooth,
    WeightedTokens,
    Windowed,
)
from headgate.core.prices import TokenWeights
from ratelimit.answers import LimitStatus, Reason, Refused

_KINDS = (Count.REQUESTS, Count.TOKENS)
_NAMES = {
    kind: tuple(f"x-ratelimit-{part}-{kind}" for part in ("limit", "remaining", "reset"))
    for kind in _KINDS
}
"""Made once: to write an enum into a text takes as long as a header."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

Headers = list[tuple[str, str]]


def quota_headers(
    quotas: Iterable[LimitStatus], now_s: float, hit: LimitStatus | None = None
) -> Headers:
    """The limit, the remaining amount and the time to reset, for requests and for tokens.

    Of several limits of a kind, the headers show the one that was hit, or else the tightest. A
    limit of weighted tokens is shown in weighted tokens. A limit of cost has none. The limit
    of a smooth one is its burst, the most that can remain; it resets when all of it remains again.
    """
    shown: dict[Count, LimitStatus] = {}
    for quota in quotas:
        count = quota.rule.count
        other = shown.get(count)
        shown[count] = quota if other is None else min(other, quota, key=_slack)
    if hit is not None:
        shown[hit.count] = hit
    headers: Headers = []
    for kind in _KINDS:
        status = shown.get(kind)
        if status is None or status.resets_at_s is None:
            continue
        limit, remaining, reset = _NAMES[kind]
        headers += [
            (limit, str(status.rule.capacity)),
            (remaining, str(status.remaining)),
            (reset, reset_time(status.resets_at_s - now_s)),
        ]
    return headers


def refused_headers(refused: Refused, now_s: float) -> Headers:
    """The headers of a 429.

    A limit of cost has no other header than the time to reset, as the rest would show the budget.
    """
    headers = [
        ("content-type", "application/json"),
        *retry_headers(refused.retry_after_s),
        *quota_headers(refused.limits, now_s, refused.hit),
    ]
    hit = refused.hit
    if hit is not None and hit.count is Count.COST and hit.resets_at_s is not None:
        headers.append((f"x-ratelimit-reset-{Count.COST}", reset_time(hit.resets_at_s - now_s)))
    return headers


def tightest(quotas: Iterable[LimitStatus]) -> LimitStatus | None:
    """The limit with the smallest remaining share; of equals, the one that resets last."""
    return min(quotas, key=_slack, default=None)


def _slack(quota: LimitStatus) -> tuple[float, float]:
    return quota.remaining / max(1, quota.limit), -(quota.resets_at_s or 0)


def reset_time(seconds: float) -> str:
    """A duration in OpenAI's format: `20ms`, `1s`, `6m0s`, `24h0m0s`. Never rounded down."""
    seconds = round(seconds, 6)  # the difference of two times is off by about 0.2 us
    if seconds <= 0:
        return "0s"
    if seconds <= 0.999:
        return f"{ceil(round(seconds * 1000, 3))}ms"
    minutes, rest_s = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest_s}s"
    return f"{minutes}m{rest_s}s" if minutes else f"{rest_s}s"


def refusal_message(refused: Refused, tenant: str) -> str:
    """A sentence for the person behind the client: the limit, and the time to try again."""
    if refused.reason is Reason.UNKNOWN_TENANT:
        return f"Tenant {tenant} is not in the policy of the rate limiter."
    if refused.reason is Reason.REPLAYED or refused.hit is None:
        return "This request has been counted already; send it as a new one."
    hit = refused.hit
    rest = f", {written(hit.count, hit.remaining)} left" if hit.remaining else ""
    wait = _wait(refused.retry_after_s)
    needed = _needed(refused, hit)
    return f"Rate limit reached: {_words(hit.rule, tenant)}{rest}{needed}; try again in {wait}."


def _needed(refused: Refused, hit: LimitStatus) -> str:
    """The tokens or money that were needed: "98,892 left" alone explains no refusal."""
    if refused.needed is None or hit.count not in (Count.TOKENS, Count.COST):
        return ""
    return f", {written(hit.count, refused.needed)} needed (an estimate)"


def _words(limit: Limit, tenant: str) -> str:
    """The limit in words: `100 requests per minute for each user of tenant demo`."""
    models = f" on {', '.join(sorted(limit.models))}" if limit.models else ""
    return f"{_amount(limit)}{models} for {_whom(limit)}tenant {tenant}"


def _amount(limit: Limit) -> str:
    number = written(limit.count, limit.limit)
    match limit.shape:
        case Slots():
            return f"{number} request{_plural(limit.limit)} at once"
        case Windowed(per=per, measure=measure):
            return f"{number} {_noun(measure, limit.limit)} per {per}"
        case Smooth(per=per, burst=burst, measure=measure):
            rate = f"{number} {_noun(measure, limit.limit)} per {per}"
            return f"{rate} in bursts of up to {written(limit.count, burst)}"


def _noun(measure: Measure, number: int) -> str:
    match measure:
        case CountedRequests():
            return f"request{_plural(number)}"
        case WeightedTokens(weights=weights):
            weighted = "" if weights == TokenWeights() else "weighted "
            return f"{weighted}token{_plural(number)}"
        case PricedTokens():
            return "of cost"


def _whom(limit: Limit) -> str:
    """The callers that the limit counts. A single named user is the caller; more stay unnamed."""
    each = " and ".join(dimension for dimension in Each if dimension in limit.each)
    if each:
        return f"each {each} of "
    if len(limit.users) == 1:
        return f"user {min(limit.users)} of "
    return f"{len(limit.users)} users of " if limit.users else ""


def _plural(number: int) -> str:
    return "" if number == 1 else "s"


def _wait(seconds: int) -> str:
    """Whole seconds in at most two units, never rounded down: `12 s`, `3 h 5 min`, `2 d 1 h`."""
    step_s = 3_600 if seconds >= 86_400 else 60 if seconds >= 3_600 else 1
    seconds = -(-seconds // step_s) * step_s
    parts = []
    for size_s, name in _UNITS:
        number, seconds = divmod(seconds, size_s)
        if number:
            parts.append(f"{number} {name}")
    return " ".join(parts)
