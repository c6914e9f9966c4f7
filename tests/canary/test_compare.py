"""The verdict on a canary, from numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.canary.compare import (
    Comparison,
    Measurements,
    Thresholds,
    Verdict,
    compare,
    outcome,
    wilson,
)
from headgate.canary.queries import FINISH_REASONS

LIMITS = Thresholds()
GOOD = Measurements(
    requests=1000,
    errors=2,
    finished=1000,
    finish_reasons={**dict.fromkeys(FINISH_REASONS, 0.0), "stop": 1000.0},
    ttft_samples=1000,
    ttft_p50_s=0.2,
    ttft_p95_s=0.5,
    per_token_samples=90_000,
    per_token_s=0.02,
    e2e_samples=1000,
    e2e_p95_s=12.0,
    waiting=0.5,
    kv_cache=0.4,
    tokens_per_request=210.0,
)


def row(rows: list[Comparison], name: str) -> Comparison:
    return next(row for row in rows if row.name == name)


def test_a_canary_like_the_stable_version_is_ok() -> None:
    rows = compare(GOOD, GOOD, LIMITS)

    assert outcome(rows) is Verdict.OK
    assert row(rows, "TTFT p95").ratio == 1.0


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("error rate", {"errors": 100.0}),
        ("engine errors", {"finish_reasons": {**(GOOD.finish_reasons or {}), "error": 90.0}}),
        ("TTFT p50", {"ttft_p50_s": 0.3}),
        ("TTFT p95", {"ttft_p95_s": 0.7}),
        ("time per token", {"per_token_s": 0.03}),
        ("waiting for each pod", {"waiting": 9.0}),
        ("KV cache in use", {"kv_cache": 0.97}),
    ],
)
def test_one_measure_that_is_worse_makes_the_canary_worse(
    name: str, changed: dict[str, float]
) -> None:
    rows = compare(GOOD, replace(GOOD, **changed), LIMITS)

    assert row(rows, name).verdict is Verdict.WORSE
    assert row(rows, name).why
    assert [row.name for row in rows if row.verdict is Verdict.WORSE] == [name]
    assert outcome(rows) is Verdict.WORSE


@pytest.mark.parametrize("name", ["end to end p95", "tokens per request", "finished: length"])
def test_what_depends_on_the_prompts_is_shown_and_not_judged(name: str) -> None:
    other = replace(
        GOOD,
        e2e_p95_s=60.0,
        tokens_per_request=900.0,
        finish_reasons={**dict.fromkeys(FINISH_REASONS, 0.0), "length": 1000.0},
    )
    rows = compare(GOOD, other, LIMITS)

    assert row(rows, name).verdict is Verdict.SHOWN
    assert outcome(rows) is Verdict.OK


def test_too_few_samples_are_never_ok_and_never_worse() -> None:
    few = replace(GOOD, requests=20.0, errors=5.0, ttft_samples=20.0, ttft_p95_s=5.0)
    rows = compare(GOOD, few, LIMITS)

    assert row(rows, "error rate").verdict is Verdict.TOO_FEW
    assert row(rows, "TTFT p95").verdict is Verdict.TOO_FEW
    assert "canary has 20 of 100" in row(rows, "requests").why
    assert outcome(rows) is Verdict.TOO_FEW


@pytest.mark.parametrize("part", ["stable", "canary"])
def test_no_traffic_is_no_data_and_never_ok(part: str) -> None:
    parts = (Measurements(), GOOD) if part == "stable" else (GOOD, Measurements())
    rows = compare(*parts, LIMITS)

    assert outcome(rows) is Verdict.NO_DATA
    assert f"nothing of {part}" in row(rows, "requests").why
    assert not [row for row in rows if row.verdict in (Verdict.OK, Verdict.WORSE)]


def test_what_is_worse_outweighs_what_is_not_known() -> None:
    rows = compare(GOOD, replace(GOOD, ttft_p95_s=2.0, kv_cache=None), LIMITS)

    assert row(rows, "KV cache in use").verdict is Verdict.NO_DATA
    assert outcome(rows) is Verdict.WORSE


def test_one_error_in_a_hundred_is_no_proof_against_two_in_a_thousand_and_ten_are() -> None:
    """1 of 100 is at least 0.2 %, and 2 of 1,000 are at most 0.7 %."""
    some = replace(GOOD, requests=100.0, errors=1.0)
    many = replace(GOOD, requests=100.0, errors=10.0)

    assert row(compare(GOOD, some, LIMITS), "error rate").verdict is Verdict.OK
    assert row(compare(GOOD, many, LIMITS), "error rate").verdict is Verdict.WORSE


def test_an_increase_that_prometheus_extrapolates_counts_as_the_whole_number_next_to_it() -> None:
    almost = replace(GOOD, requests=99.7)
    assert row(compare(GOOD, almost, LIMITS), "requests").verdict is Verdict.OK


def test_the_share_is_shown_beside_what_is_configured() -> None:
    share = row(compare(replace(GOOD, requests=9000.0), GOOD, LIMITS, weight=10), "traffic share")

    assert share.canary == 0.1
    assert share.why == "configured: 10 %"
    assert share.verdict is Verdict.SHOWN


@given(total=st.integers(1, 10**6), share=st.floats(0, 1))
def test_an_interval_holds_its_rate_and_stays_between_0_and_1(total: int, share: float) -> None:
    hits = round(total * share)
    low, high = wilson(hits, total)

    assert 0 <= low <= hits / total + 1e-9
    assert hits / total - 1e-9 <= high <= 1


def test_an_interval_says_that_no_error_in_ten_requests_proves_little() -> None:
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))  # Wilson's, to be looked up
    assert wilson(0, 0) == (0.0, 1.0)
