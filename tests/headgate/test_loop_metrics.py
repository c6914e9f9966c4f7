"""The metrics of the event loop: the same samples as those of prometheus_client."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from headgate.core.loop_metrics import LoopCounter, LoopHistogram

BUCKETS = (0.005, 0.25, 1, 7.5, 100.0)
LABELS = ("model", "status")
VALUES = st.lists(
    st.tuples(
        st.sampled_from(["tiny", "large"]),
        st.sampled_from([200, "200", 503]),
        st.one_of(st.sampled_from(BUCKETS), st.floats(0, 1_000)),
        st.sampled_from([None, "a" * 32]),
    )
)


def shown(registry: CollectorRegistry) -> list[object]:
    """What a registry shows, but for the times at which series began and exemplars came."""
    return [
        (
            family.name,
            family.documentation,
            family.type,
            sample.name,
            sample.labels,
            None if sample.name.endswith("_created") else sample.value,
            sample.exemplar and (sample.exemplar.labels, sample.exemplar.value),
        )
        for family in registry.collect()
        for sample in family.samples
    ]


@given(VALUES)
def test_a_counter_shows_what_that_of_prometheus_client_shows(
    counted: Sequence[tuple[str, object, float, object]],
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = LoopCounter("requests", "Requests.", labelnames=LABELS, registry=ours)
    known = Counter("requests", "Requests.", labelnames=LABELS, registry=theirs)
    for model, status, amount, _ in counted:
        own.labels(model, status).inc(amount)
        known.labels(model, status).inc(amount)

    assert shown(ours) == shown(theirs)


@given(VALUES)
def test_a_histogram_shows_what_that_of_prometheus_client_shows(
    observed: Iterable[tuple[str, object, float, str | None]],
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = LoopHistogram("wait", "Waits.", labelnames=LABELS, registry=ours, buckets=BUCKETS)
    known = Histogram("wait", "Waits.", labelnames=LABELS, registry=theirs, buckets=BUCKETS)
    for model, status, seconds, trace_id in observed:
        own.labels(model, status).observe(seconds, trace_id)
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        known.labels(model, status).observe(seconds, exemplar)

    assert shown(ours) == shown(theirs)
    assert generate_latest(ours)


def test_a_name_is_taken_once_and_each_label_has_a_value() -> None:
    registry = CollectorRegistry()
    counter = LoopCounter("requests", "Requests.", labelnames=LABELS, registry=registry)

    with pytest.raises(ValueError, match="Duplicated"):
        LoopCounter("requests", "Again.", labelnames=LABELS, registry=registry)
    with pytest.raises(ValueError, match="model, status"):
        counter.labels("tiny")
