"""The metrics of several processes as those of one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headgate.core.metrics import Metrics
from headgate.program.workers.merging import RULES, counts, merged, registry_of
from tests.fakes import FakeClock


def one_process(
    requests: dict[str, int], seconds: Sequence[float], available: float
) -> list[Metric]:
    """The families of a process with a counter, a histogram and a gauge."""
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests.", ["model"], registry=registry)
    for model, count in requests.items():
        counter.labels(model).inc(count)
    histogram = Histogram("wait", "Waits.", buckets=(1.0, 2.0), registry=registry)
    for each in seconds:
        histogram.observe(each)
    Gauge("available", "Available.", registry=registry).set(available)
    return list(registry.collect())


def value(families: list[Metric], name: str, **labels: str) -> float | None:
    return registry_of(families).get_sample_value(name, labels)


def test_counters_and_histograms_are_added_up_and_a_gauge_follows_its_rule() -> None:
    first = one_process({"tiny": 3}, [0.5, 1.5], 1.0)
    second = one_process({"tiny": 4, "small": 1}, [5.0], 0.0)

    families = merged([first, second], {"available": min})

    assert value(families, "requests_total", model="tiny") == 7
    assert value(families, "requests_total", model="small") == 1
    assert value(families, "wait_count") == 3
    assert value(families, "wait_sum") == 7.0
    assert value(families, "wait_bucket", le="1.0") == 1
    assert value(families, "wait_bucket", le="+Inf") == 3
    assert value(families, "available") == 0


@pytest.mark.parametrize(("first", "second"), [(0, 7), (7, 0), (7, 9), (9, 7)])
def test_the_oldest_time_counts_and_a_time_of_0_is_none(first: float, second: float) -> None:
    assert RULES["oldest"](first, second) == 7


def test_a_page_names_each_family_once_and_a_parser_reads_it() -> None:
    families = merged([one_process({"a": 1}, [1.0], 1.0)] * 3, {})
    page = generate_latest(registry_of(families)).decode()

    assert page.count("# TYPE requests_total counter") == 1
    assert page.count("# HELP wait ") == 1
    assert {family.name for family in text_string_to_metric_families(page)} >= {"requests", "wait"}


def test_a_series_began_when_the_first_process_began_it() -> None:
    first, second = one_process({"a": 1}, [], 1.0), one_process({"a": 1}, [], 1.0)
    begun = [value(one, "requests_created", model="a") for one in (first, second)]

    assert value(merged([second, first], {}), "requests_created", model="a") == min(
        each for each in begun if each is not None
    )


def test_of_a_process_that_has_ended_its_counts_stay_and_its_gauges_do_not() -> None:
    kept = counts(one_process({"a": 2}, [1.0], 1.0))

    assert [family.name for family in kept] == ["requests", "wait"]


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 100)), min_size=1))
def test_no_order_of_processes_changes_a_sum(processes: list[dict[str, int]]) -> None:
    families = [one_process(requests, [], 1.0) for requests in processes]

    for order in (families, families[::-1]):
        for model in "abc":
            total = sum(requests.get(model, 0) for requests in processes)
            assert (value(merged(order, {}), "requests_total", model=model) or 0) == total


def test_every_gauge_of_the_table_says_how_workers_are_joined() -> None:
    """A new gauge without a rule would be added up in silence."""
    metrics = Metrics(CollectorRegistry(), FakeClock())
    gauges = {family.name for family in metrics.registry.collect() if family.type == "gauge"}
    created = {name for name in gauges if name.endswith("_created")}

    assert gauges - created == set(Metrics.gauge_modes())
    assert set(Metrics.gauge_modes().values()) <= set(RULES)


@pytest.mark.parametrize("order", [1, -1])
def test_the_exemplar_of_one_process_stays(order: int) -> None:
    processes = []
    for exemplar in (None, {"trace_id": "t1"}):
        registry = CollectorRegistry()
        Histogram("wait", "-", registry=registry).observe(1, exemplar)
        processes.append(list(registry.collect()))
    (family,) = merged(processes[::order], {})

    assert [one.exemplar.labels for one in family.samples if one.exemplar] == [{"trace_id": "t1"}]
