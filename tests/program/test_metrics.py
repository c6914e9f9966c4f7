"""The exposition that dashboards and alerts read: names, help, labels and buckets."""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from headgate.core.metrics import Metrics
from tests.fakes import FakeClock

EXPECTED = Path(__file__).with_name("exposition.txt")


def exposition(metrics: Metrics) -> str:
    """Every metric with one child, whose label values are the label names."""
    registry = metrics.registry
    parts = (metrics, metrics.of_requests, metrics.demand, metrics.of_identity, metrics.of_adapters)
    parts += (metrics.of_placement,)
    for metric in (metric for part in parts for metric in vars(part).values()):
        if labels := getattr(metric, "_labelnames", ()):
            metric.labels(*labels)
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if "_created" not in line) + "\n"


def test_names_help_labels_and_buckets_stay() -> None:
    """A change here breaks somebody's dashboard: change docs/metrics.md and CHANGELOG with it."""
    assert exposition(Metrics(CollectorRegistry(), FakeClock())) == EXPECTED.read_text()


def test_two_registries_share_no_value() -> None:
    first, second = (Metrics(CollectorRegistry(), FakeClock()) for _ in range(2))
    first.records.labels("written").inc()

    name, labels = "headgate_records_total", {"outcome": "written"}
    assert first.registry.get_sample_value(name, labels) == 1
    assert second.registry.get_sample_value(name, labels) is None
