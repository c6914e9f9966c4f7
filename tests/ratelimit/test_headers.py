"""The headers that tell a client its limits."""

import pytest

from headgate.core.amounts import NANOS
from headgate.core.policy import Count, Each, Limit, Per, TokenWeights
from ratelimit.answers import LimitStatus, Reason, Refused
from ratelimit.headers import (
    quota_headers,
    refusal_message,
    refused_headers,
    reset_time,
    tightest,
)
from tests.ratelimit.builders import NOW_S, limit


def status(rule: Limit, remaining: int, resets_in_s: int | None = 60) -> LimitStatus:
    return LimitStatus(rule, remaining, None if resets_in_s is None else int(NOW_S) + resets_in_s)


MINUTE = status(limit(100, per=Per.MINUTE), 20, 30)
DAY = status(limit(1000, per=Per.DAY), 900, 3600)
TOKENS = status(limit(50_000, Count.TOKENS, per=Per.DAY), 49_000, 3600)
SLOTS = status(limit(3, Count.CONCURRENT), 0, None)


def test_headers_show_the_tightest_limit_of_each_kind() -> None:
    assert quota_headers([DAY, MINUTE, TOKENS, SLOTS], NOW_S) == [
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-remaining-requests", "20"),
        ("x-ratelimit-reset-requests", "30s"),
        ("x-ratelimit-limit-tokens", "50000"),
        ("x-ratelimit-remaining-tokens", "49000"),
        ("x-ratelimit-reset-tokens", "1h0m0s"),
    ]


def test_weighted_tokens_are_tokens_and_cost_has_no_header() -> None:
    weighted = status(limit(1000, Count.TOKENS, weights=TokenWeights(output=4000)), 10)
    cost = status(limit(1000, Count.COST), 1)
    assert quota_headers([TOKENS, weighted, cost], NOW_S) == [
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "10"),
        ("x-ratelimit-reset-tokens", "1m0s"),
    ]
    assert quota_headers([cost], NOW_S, cost) == []


def test_where_there_is_no_limit_there_is_no_header() -> None:
    assert quota_headers([], NOW_S) == []
    assert quota_headers([SLOTS], NOW_S) == []


def test_of_equally_tight_limits_the_one_that_resets_last_is_shown() -> None:
    early, late = status(limit(10), 0, 10), status(limit(10), 0, 99)
    assert tightest([early, late]) is tightest([late, early]) is late
    assert tightest([]) is None


def test_a_refusal_shows_the_limit_that_was_hit() -> None:
    refused = Refused(Reason.LIMIT, DAY, 3600, (MINUTE, DAY, TOKENS))
    headers = dict(refused_headers(refused, NOW_S))
    assert headers["content-type"] == "application/json"
    assert headers["x-ratelimit-limit-requests"] == "1000"
    assert headers["x-ratelimit-limit-tokens"] == "50000"


@pytest.mark.parametrize(
    ("wait_s", "retry"),
    [
        (1, ("retry-after", "1")),
        (60, ("retry-after", "60")),
        (61, ("x-should-retry", "false")),
        (3_600, ("x-should-retry", "false")),
        (2_678_400, ("x-should-retry", "false")),
    ],
)
@pytest.mark.parametrize("hit", [MINUTE, DAY, TOKENS, SLOTS])
def test_nobody_is_told_to_sleep_for_more_than_a_minute(
    hit: LimitStatus, wait_s: int, retry: tuple[str, str]
) -> None:
    headers = dict(refused_headers(Refused(Reason.LIMIT, hit, wait_s, (hit,)), NOW_S))
    names = ("retry-after", "x-should-retry")
    assert [(name, headers[name]) for name in names if name in headers] == [retry]


def test_a_refusal_for_cost_says_when_it_resets() -> None:
    cost = status(limit(1000, Count.COST), 1)
    refused = Refused(Reason.LIMIT, cost, 3_600, (MINUTE, cost))
    assert dict(refused_headers(refused, NOW_S))["x-ratelimit-reset-cost"] == "1m0s"
    other = Refused(Reason.LIMIT, MINUTE, 60, (MINUTE, cost))
    assert "x-ratelimit-reset-cost" not in dict(refused_headers(other, NOW_S))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.0001, "1ms"),
        (0.02, "20ms"),
        (0.9985, "999ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.001, "2s"),
        (59.5, "1m0s"),
        (360, "6m0s"),
        (3661, "1h1m1s"),
        (86_400, "24h0m0s"),
        (31_536_000, "8760h0m0s"),
    ],
)
def test_reset_times_have_the_form_of_openai(seconds: float, text: str) -> None:
    assert reset_time(seconds) == text


@pytest.mark.parametrize(
    ("rule", "remaining", "retry_after_s", "text"),
    [
        (
            limit(100, each=(Each.USER,)),
            0,
            12,
            "100 requests per minute for each user of tenant demo; try again in 12 s",
        ),
        (
            limit(100_000, Count.TOKENS, per=Per.DAY),
            1200,
            11_100,
            "100,000 tokens per day for tenant demo, 1,200 left; try again in 3 h 5 min",
        ),
        (
            limit(1, per=Per.YEAR, each=(Each.MODEL, Each.KEY)),
            0,
            176_401,
            "1 request per year for each key and model of tenant demo; try again in 2 d 2 h",
        ),
        (
            limit(1, Count.CONCURRENT, each=(Each.USER,)),
            0,
            1,
            "1 request at once for each user of tenant demo; try again in 1 s",
        ),
        (
            limit(5, models=("b", "a")),
            0,
            60,
            "5 requests per minute on a, b for tenant demo; try again in 1 min",
        ),
        (
            limit(25 * NANOS, Count.COST, per=Per.MONTH, each=(Each.USER,)),
            13_200_000,
            60,
            "25.00 of cost per month for each user of tenant demo, 0.0132 left; try again in 1 min",
        ),
        (
            limit(1_250_000_000_001, Count.COST, per=Per.DAY, models=("tiny",)),
            0,
            60,
            "1,250.000000001 of cost per day on tiny for tenant demo; try again in 1 min",
        ),
        (
            limit(100_000, Count.TOKENS, per=Per.DAY, weights=TokenWeights(output=4000)),
            1200,
            60,
            "100,000 weighted tokens per day for tenant demo, 1,200 left; try again in 1 min",
        ),
        (
            limit(5, users=("alice",)),
            0,
            60,
            "5 requests per minute for user alice of tenant demo; try again in 1 min",
        ),
        (
            limit(5, users=("alice", "bob")),
            0,
            60,
            "5 requests per minute for 2 users of tenant demo; try again in 1 min",
        ),
    ],
)
def test_the_message_names_the_limit_and_the_wait(
    rule: Limit, remaining: int, retry_after_s: int, text: str
) -> None:
    refused = Refused(Reason.LIMIT, status(rule, remaining), retry_after_s, ())
    assert refusal_message(refused, "demo") == f"Rate limit reached: {text}."


@pytest.mark.parametrize(
    ("rule", "needed", "text"),
    [
        (TOKENS.rule, 98_892, ", 3 left, 98,892 needed (an estimate); try"),
        (limit(5), 1, ", 3 left; try"),
    ],
)
def test_the_message_says_how_many_tokens_were_needed(rule: Limit, needed: int, text: str) -> None:
    """A single image that needs more than what is left explains itself."""
    refused = Refused(Reason.LIMIT, status(rule, 3), 60, (), needed)
    assert text in refusal_message(refused, "demo")


def test_other_refusals_say_what_is_wrong() -> None:
    unknown = Refused(Reason.UNKNOWN_TENANT, None, 1, ())
    replayed = Refused(Reason.REPLAYED, None, 1, ())
    assert (
        refusal_message(unknown, "gone") == "Tenant gone is not in the policy of the rate limiter."
    )
    assert "counted already" in refusal_message(replayed, "demo")
    assert dict(refused_headers(unknown, NOW_S)) == {
        "content-type": "application/json",
        "retry-after": "1",
    }
