"""The event loop is free for the hooks, and what holds it is measured."""

import asyncio
import gc

import pytest
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from headgate.program.stalls import StallWatch, spare_collections
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"{name}_count", labels) or 0.0


async def test_each_collection_is_measured_by_its_generation(clock: FakeClock) -> None:
    metrics = Metrics(CollectorRegistry(), clock)
    async with StallWatch(clock, metrics):
        before = [count(metrics, "headgate_gc_pause_seconds", generation=str(n)) for n in range(3)]
        gc.collect(1)
        gc.collect(2)
        after = [count(metrics, "headgate_gc_pause_seconds", generation=str(n)) for n in range(3)]
    assert after[1] - before[1] >= 1
    assert after[2] - before[2] >= 1

    gc.collect(2)
    assert count(metrics, "headgate_gc_pause_seconds", generation="2") == after[2]


async def test_a_held_loop_shows_as_lag(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.program.stalls._LOOK_EVERY_S", 0.0)
    metrics = Metrics(CollectorRegistry(), clock)
    async with StallWatch(clock, metrics):
        await asyncio.sleep(0)
        clock.advance(0.3)
        while not count(metrics, "headgate_loop_lag_seconds"):  # noqa: ASYNC110 - a metric has no event
            await asyncio.sleep(0)
    assert metrics.registry.get_sample_value(
        "headgate_loop_lag_seconds_bucket", {"le": "0.25"}
    ) < count(metrics, "headgate_loop_lag_seconds")


def test_spared_objects_are_walked_no_more() -> None:
    kept = [[number] for number in range(1000)]
    try:
        spare_collections()
        assert gc.get_freeze_count() > len(kept)
        young = gc.get_objects(generation=2)
        assert not any(item is kept for item in young)
    finally:
        gc.unfreeze()
