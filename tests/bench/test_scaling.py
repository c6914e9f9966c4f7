"""The simulation of scaling follows Kubernetes' law, and shows what it is for."""

from dataclasses import replace

import pytest

from bench.scaling import measure
from bench.scaling.autoscaler import BEFORE, DEMAND, TTFT, WAITING, Autoscaler, Rules, shipped
from bench.scaling.run import run_day
from bench.scaling.spot import Spot
from bench.scaling.trace import Day

NIGHT = Day(name="night", hours=(3, 3.5), job=None)
MORNING = Day(name="morning", hours=(5.5, 9), job=None)
RULES = Rules(thresholds={DEMAND: 100}, up_pods=2, up_period_s=120, down_pods=1, down_period_s=600)


def scaler(pods: int = 4, **changes: object) -> Autoscaler:
    return Autoscaler(replace(RULES, **changes), pods)


@pytest.mark.parametrize(
    ("value", "pods"), [(400.0, 4), (436.0, 4), (445.0, 5), (500.0, 5), (5000.0, 6), (361.0, 4)]
)
def test_pods_follow_the_value_beyond_a_tenth_and_in_steps(value: float, pods: int) -> None:
    assert scaler().decide(1000.0, {DEMAND: value}) == pods


def test_the_largest_answer_counts() -> None:
    two = scaler(thresholds={DEMAND: 100, WAITING: 4})

    assert two.decide(1000.0, {DEMAND: 0.0, WAITING: 18.0}) == 5


def test_a_pod_goes_only_when_all_of_the_window_asked_for_fewer() -> None:
    waiting = scaler(down_window_s=60)
    asked = [(0.0, 400.0), (30.0, 200.0), (59.0, 200.0), (61.0, 200.0), (76.0, 200.0)]

    assert [waiting.decide(at_s, {DEMAND: value}) for at_s, value in asked] == [4, 4, 4, 3, 3]


def test_an_empty_answer_takes_pods_away_unless_it_is_an_error() -> None:
    for empty_is_zero, pods in ((True, 3), (False, 4)):
        blind = scaler(down_window_s=0, empty_is_zero=empty_is_zero)
        assert blind.decide(1000.0, {DEMAND: None}) == pods


def test_the_shipped_object_has_the_signals_of_demand_queue_and_latency() -> None:
    rules = shipped()

    assert {DEMAND, WAITING, TTFT} < set(rules.thresholds)
    assert not rules.empty_is_zero


def test_a_morning_costs_few_late_answers_and_no_flapping() -> None:
    ours, always = run_day(MORNING, shipped()), run_day(MORNING, 8)

    assert ours.requests == always.requests
    assert ours.missed < always.missed + 0.01
    assert ours.pod_hours < 0.7 * always.pod_hours
    assert (ours.wasted, ours.flaps) == (0, 0)


def test_pods_stay_while_the_metrics_of_vllm_are_away() -> None:
    blind = replace(MORNING, blind=(8, 9))

    assert run_day(blind, shipped()).missed < 0.01
    assert run_day(replace(blind, hours=(5.5, 9)), replace(BEFORE, down_window_s=300)).missed > 0.01


def test_a_reclaimed_pod_that_drains_cuts_no_answer() -> None:
    spot = Spot(share=1.0, mean_hours=0.1)

    assert run_day(NIGHT, shipped(), spot).cut == 0
    assert run_day(NIGHT, shipped(), replace(spot, drains=False)).cut > 0


async def test_the_tables_have_a_row_for_each_way() -> None:
    ways, spots = await measure((NIGHT,))

    assert len(ways.rows) == len(spots.rows) == 4
