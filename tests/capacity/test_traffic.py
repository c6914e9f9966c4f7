"""The traffic: the busiest window, growth by users, and the lines of records."""

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.capacity.assumptions import Assumptions, assumed_traffic
from headgate.capacity.fit import Sample, fit
from headgate.capacity.gpus import GPUS, computed_curve
from headgate.capacity.records import Demand
from headgate.capacity.traffic import (
    Arrival,
    busiest_window,
    grown,
    shortened,
    think_times_s,
    without_cache,
)
from headgate.core.errors import OperatorError


def arrival(at_s: float, user: str = "alice", tokens: int = 10) -> Arrival:
    return Arrival(
        at_s=at_s,
        user=user,
        tenant="acme",
        prompt_tokens=tokens,
        cached_tokens=tokens // 2,
        output_tokens=tokens,
    )


@given(st.lists(st.tuples(st.floats(0, 1_000), st.integers(1, 50)), min_size=1, max_size=40))
def test_no_window_has_more_tokens_than_the_busiest(requests: list[tuple[float, int]]) -> None:
    all_of_them = [arrival(at_s, tokens=tokens) for at_s, tokens in requests]

    busiest = busiest_window("m", all_of_them, 60)

    for at_s, _ in requests:
        inside = [each for each in all_of_them if at_s <= each.at_s < at_s + 60]
        work = sum(e.prompt_tokens - e.cached_tokens + e.output_tokens for e in inside)
        assert work <= busiest.tokens
    assert busiest.arrivals[0].at_s == 0
    assert all(0 <= each.at_s < 60 for each in busiest.arrivals)


@given(st.integers(1, 5), st.integers(0, 100))
def test_growth_multiplies_users_and_keeps_their_requests(times: int, seed: int) -> None:
    traffic = busiest_window("m", [arrival(s, u) for s in range(9) for u in "ab"], 60)

    more = grown(traffic, float(times), random.Random(seed))

    assert len(more.arrivals) == times * len(traffic.arrivals)
    assert len({each.user for each in more.arrivals}) == times * 2
    assert more.tokens == times * traffic.tokens
    assert list(more.arrivals) == sorted(more.arrivals, key=lambda each: each.at_s)


def test_a_broken_growth_takes_a_part_of_the_users() -> None:
    traffic = busiest_window("m", [arrival(0, f"u{n}") for n in range(1_000)], 60)

    more = grown(traffic, 1.5, random.Random(1))

    assert 1_400 < len(more.arrivals) < 1_600


def test_a_shortened_window_is_its_busiest_part() -> None:
    calm = [arrival(second * 10.0) for second in range(60)]
    burst = [arrival(300 + second / 10) for second in range(60)]
    traffic = busiest_window("m", calm + burst, 600)

    part = shortened(traffic, 60)

    assert part.window_s == 300
    assert len(part.arrivals) > 80
    assert shortened(traffic, 1_000) is traffic


def test_without_the_cache_every_prompt_is_computed() -> None:
    traffic = busiest_window("m", [arrival(0)], 60)

    assert without_cache(traffic).tokens == traffic.tokens + 5


def test_pauses_are_those_of_one_user() -> None:
    mixed = [arrival(0, "a"), arrival(1, "b"), arrival(30, "a"), arrival(32, "b")]

    assert sorted(think_times_s(mixed)) == [30, 31]


def test_assumed_users_are_in_no_step() -> None:
    traffic = assumed_traffic("m", Assumptions(users=20_000), 600, random.Random(1))

    first = sum(each.at_s < 300 for each in traffic.arrivals)
    assert 0.47 < first / len(traffic.arrivals) < 0.53
    assert len({each.user for each in traffic.arrivals}) > 1_900


def line(**fields: object) -> bytes:
    """One usage record."""
    record = {
        "time": "2026-11-20T10:00:00.000Z",
        "reservation": "r",
        "tenant": "acme",
        "user": "alice",
        "model": "chat",
        "base": "llama",
        "status": 200,
        "flags": [],
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 40,
        "estimated_tokens": 500,
        "estimated_prompt_tokens": 200,
        "ttft_s": 0.5,
        **fields,
    }
    return json.dumps(record).encode() + b"\n"


def test_records_are_demand_of_the_base_model(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl.gz"
    file.write_bytes(gzip.compress(line() + line(base=None, cached_tokens=None) + b"{broken\n"))

    demand = Demand()
    demand.read(file, lambda _: None)

    assert {name: len(each) for name, each in demand.arrivals.items()} == {"llama": 1, "chat": 1}
    (first,) = demand.arrivals["llama"]
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (100, 40, 20)
    assert demand.other_lines == 1


def test_a_refusal_by_a_limit_is_no_demand_and_a_503_is(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    empty = {"prompt_tokens": None, "completion_tokens": None, "ttft_s": None}
    file.write_bytes(line(status=429, flags=["RL"], **empty) + line(status=503, **empty))

    demand = Demand()
    demand.read(file, lambda _: None)

    assert (demand.refused_by_limits, demand.without_capacity) == (1, 1)
    (missed,) = demand.arrivals["llama"]
    assert (missed.prompt_tokens, missed.output_tokens) == (200, 300)


@given(
    base=st.floats(0.001, 0.05),
    slope=st.floats(0.00001, 0.002),
    first_s=st.floats(0.001, 0.1),
    rate=st.floats(1_000, 100_000),
)
def test_a_curve_is_found_in_samples_of_it(
    base: float, slope: float, first_s: float, rate: float
) -> None:
    samples = [
        Sample(
            running=running,
            interval_s=base + slope * running,
            prefill_s=first_s + tokens / rate,
            uncached_tokens=tokens,
            requests_per_s=0,
        )
        for running, tokens in ((1, 500), (5, 900), (20, 300), (60, 2_000), (100, 100))
    ]

    fitted = fit(samples)

    assert fitted.interval.base == pytest.approx(base, rel=1e-6)
    assert fitted.interval.slope == pytest.approx(slope, rel=1e-6)
    assert fitted.prefill.base == pytest.approx(first_s, rel=1e-6)
    assert 1 / fitted.prefill.slope == pytest.approx(rate, rel=1e-6)


def test_samples_that_are_all_alike_give_no_curve() -> None:
    alike = [
        Sample(running=3, interval_s=0.01, prefill_s=0.1, uncached_tokens=500, requests_per_s=1)
    ] * 9

    with pytest.raises(OperatorError, match="nearly the same length"):
        fit(alike)
    with pytest.raises(OperatorError, match="too few"):
        fit(alike[:4])


def test_a_larger_model_is_slower_on_the_same_gpus() -> None:
    for gpu in GPUS:
        small, large = computed_curve(gpu, 4, 8), computed_curve(gpu, 4, 32)
        assert large.token_interval_s > small.token_interval_s
        assert large.prefill_tokens_per_s < small.prefill_tokens_per_s


def test_weights_need_room_on_the_gpus() -> None:
    with pytest.raises(ValueError, match="give the pod more GPUs"):
        computed_curve("H100", 1, 70)
    assert computed_curve("H100", 1, 70, bits=4).gpus == 1
