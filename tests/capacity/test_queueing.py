"""Pods under load: the simulation obeys the laws of queues."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.capacity.curve import ServiceCurve
from headgate.capacity.forecast import Objective, forecast, pods_for_zones, predict, quantile
from headgate.capacity.queueing import simulate
from headgate.capacity.traffic import Arrival, Traffic

CURVE = ServiceCurve(
    gpu="H100",
    gpus=1,
    first_token_s=0.03,
    prefill_tokens_per_s=10_000,
    token_interval_s=0.01,
    slowdown_s=0.001,
    max_num_seqs=4,
    source="the test",
)
WINDOW_S = 60.0

arrivals = st.lists(
    st.builds(
        Arrival,
        at_s=st.floats(0, WINDOW_S - 1),
        user=st.sampled_from("abc"),
        tenant=st.just("acme"),
        prompt_tokens=st.integers(1, 3_000),
        cached_tokens=st.just(0),
        output_tokens=st.integers(1, 400),
    ),
    min_size=1,
    max_size=40,
)


def traffic_of(requests: list[Arrival]) -> Traffic:
    """One window with these requests."""
    ordered = tuple(sorted(requests, key=lambda each: each.at_s))
    return Traffic(model="m", window_s=WINDOW_S, arrivals=ordered)


def request(at_s: float, *, prompt: int = 1_000, cached: int = 0, output: int = 101) -> Arrival:
    return Arrival(
        at_s=at_s,
        user="alice",
        tenant="acme",
        prompt_tokens=prompt,
        cached_tokens=cached,
        output_tokens=output,
    )


def test_a_request_alone_takes_the_times_of_the_curve() -> None:
    waits = simulate(traffic_of([request(1.0)]), CURVE, 1, random.Random(1))

    assert [round(each, 6) for each in waits.ttft_s] == [0.13]
    assert [round(each, 6) for each in waits.per_token_s] == [0.011]


def test_cached_tokens_cost_nothing() -> None:
    waits = simulate(traffic_of([request(1.0, cached=1_000)]), CURVE, 1, random.Random(1))

    assert [round(each, 6) for each in waits.ttft_s] == [0.03]


def test_prompts_are_computed_one_after_the_other() -> None:
    waits = simulate(traffic_of([request(1.0), request(1.0)]), CURVE, 1, random.Random(1))

    assert [round(each, 6) for each in sorted(waits.ttft_s)] == [0.13, 0.23]


def test_a_full_batch_makes_the_next_request_wait_for_an_end() -> None:
    full = [request(1.0, prompt=1, output=1_001) for _ in range(4)]
    waits = simulate(traffic_of([*full, request(1.1, prompt=1)]), CURVE, 1, random.Random(1))

    # Four sequences advance every 10 + 4 x 1 ms.
    assert 13.8 < max(waits.ttft_s) < 14.2


@given(arrivals)
@settings(max_examples=40, deadline=None)
def test_every_request_is_served_once_and_none_faster_than_alone(requests: list[Arrival]) -> None:
    waits = simulate(traffic_of(requests), CURVE, 2, random.Random(1))

    assert len(waits.ttft_s) == len(requests)
    assert len(waits.per_token_s) == sum(each.output_tokens > 1 for each in requests)
    assert min(waits.ttft_s) >= CURVE.first_token_s
    slowest_s = CURVE.interval_s(CURVE.max_num_seqs)
    for per_token_s in waits.per_token_s:
        assert CURVE.interval_s(1) - 1e-9 <= per_token_s <= slowest_s + 1e-9


@given(arrivals)
@settings(max_examples=20, deadline=None)
def test_a_faster_pod_never_waits_longer_in_sum(requests: list[Arrival]) -> None:
    faster = replace(CURVE, prefill_tokens_per_s=20_000, first_token_s=0.015)
    slow = simulate(traffic_of(requests), CURVE, 1, random.Random(1))
    fast = simulate(traffic_of(requests), faster, 1, random.Random(1))

    assert sum(fast.ttft_s) <= sum(slow.ttft_s) + 1e-6


def test_the_forecast_names_the_smallest_number_that_is_enough() -> None:
    chance = random.Random(5)
    requests = [request(chance.uniform(0, WINDOW_S), output=200) for _ in range(300)]
    traffic, objective = traffic_of(requests), Objective(ttft_s=0.5)

    result = forecast(traffic, CURVE, objective, 1.0)

    assert result.pods is not None
    assert result.pods > 1
    assert predict(traffic, CURVE, objective, 1.0, result.pods, seed=1).is_enough
    assert not predict(traffic, CURVE, objective, 1.0, result.pods - 1, seed=1).is_enough
    more = forecast(traffic, CURVE, objective, 3.0)
    assert more.pods is not None
    assert more.pods > result.pods
    assert more.requests_per_s == 3 * result.requests_per_s


def test_an_objective_below_the_fastest_answer_is_out_of_reach() -> None:
    result = forecast(traffic_of([request(1.0)]), CURVE, Objective(ttft_s=0.01), 1.0)

    assert result.pods is None
    assert result.chosen is None


def test_pods_outlive_the_loss_of_a_zone() -> None:
    for pods in range(1, 30):
        for zones in (2, 3, 4):
            spread = pods_for_zones(pods, zones)
            assert spread % zones == 0
            assert spread - spread // zones >= pods
    assert pods_for_zones(7, 1) == 7


def test_a_quantile_is_a_value_that_came() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.95) == 3.0
    assert quantile([3.0, 1.0, 2.0], 0.0) == 1.0
    assert quantile([], 0.5) == 0.0
