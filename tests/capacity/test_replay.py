"""The law of the forecast is that of the simulator."""

import asyncio
import random

import pytest

from bench.own_time import run_in_own_time
from bench.plan import ANY_TTFT, CURVE, replayed_ttft_s, traffic_of
from headgate.capacity.forecast import predict, quantile
from headgate.capacity.queueing import simulate


@pytest.mark.parametrize("users", [60, 150], ids=["half full", "overloaded"])
def test_a_simulation_has_the_times_of_a_replay_of_the_same_requests(users: int) -> None:
    traffic = traffic_of(users, 60)
    simulated = sorted(simulate(traffic, CURVE, 1, random.Random(1)).ttft_s)
    replayed = sorted(replayed_ttft_s(traffic))

    for share in (0.5, 0.95, 1):
        assert quantile(replayed, share) == pytest.approx(quantile(simulated, share), rel=0.05)


def test_a_forecast_is_within_15_percent_of_a_replay() -> None:
    traffic = traffic_of(60, 240)
    forecast_s = predict(traffic, CURVE, ANY_TTFT, 1.0, 1, seed=1).ttft_s
    measured_s = quantile(replayed_ttft_s(traffic), ANY_TTFT.quantile)

    assert measured_s == pytest.approx(forecast_s, rel=0.15)


def test_in_own_time_an_hour_is_over_at_once_and_tasks_wake_in_order() -> None:
    woken = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((seconds, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(sleeper(3600), sleeper(60))

    run_in_own_time(main())

    assert [round(at_s) for _, at_s in woken] == [60, 3600]


def test_tasks_that_wait_for_each_other_are_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        run_in_own_time(main())
