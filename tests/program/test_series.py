"""Series that alerts read exist before their first event, and no client makes new ones."""

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter

from accesslog.counts import RequestCounts
from accesslog.meter import meter
from accesslog.types import UsageRecord
from headgate.core.loop_metrics import LoopCounter
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.policy import parse_policy
from headgate.program.series import start_policy_series, start_series
from tests.accesslog.entries import ADMISSION, entry, prices_of
from tests.fakes import FakeClock

POLICY = parse_policy(
    b"""
models:
  plain: {upstream: "http://127.0.0.1:1", context_tokens: 8192}
  split:
    upstream: "http://127.0.0.1:1"
    context_tokens: 8192
    versions:
      v1: {weight: 90}
      v2: {weight: 10, upstream: "http://127.0.0.1:2"}
tenants: {acme: {models: [plain, split], keys: [], limits: []}}
""",
    "policy.yaml",
)
BORN_LATER = {
    "headgate_requests", "headgate_tokens", "headgate_cost", "headgate_refusals",
    "headgate_shadow_refusals", "headgate_versions", "headgate_slices",
    "headgate_outage_reconciled", "headgate_descriptors", "headgate_descriptor_hits",
    "headgate_descriptor_near_limit_hits", "headgate_tokens_checked", "headgate_issuer_fetches",
}  # fmt: skip
"""Counters of tenants, and those that no alert reads."""


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(CollectorRegistry(), FakeClock())
    start_series(metrics)
    start_policy_series(metrics, POLICY)
    return metrics


def series(metrics: Metrics) -> set[tuple[str, ...]]:
    samples = (sample for family in metrics.registry.collect() for sample in family.samples)
    return {(sample.name, *sample.labels.values()) for sample in samples}


def counters(metrics: Metrics) -> Iterator[str]:
    of = metrics.of_requests, metrics.of_identity, metrics.of_store
    parts = (metrics, metrics.demand, *of)
    for metric in (metric for part in parts for metric in vars(part).values()):
        if isinstance(metric, Counter | LoopCounter):
            yield next(iter(metric.describe())).name


def test_each_counter_that_alerts_read_has_series_from_the_start(metrics: Metrics) -> None:
    begun = {name.removesuffix("_total") for name, *_ in series(metrics)}
    assert set(counters(metrics)) - begun == BORN_LATER


def record(**changes: object) -> UsageRecord:
    finished = meter(entry(**changes), prices_of)
    assert finished is not None
    return finished.record


@pytest.mark.parametrize("status", [200, 429, 503, 500, 404, None])
@pytest.mark.parametrize("flags", [(), ("UF", "URX"), ("DC",), ("RL",)])
@pytest.mark.parametrize(("model", "version"), [("plain", None), ("split", "v2")])
def test_a_first_failure_is_counted_in_a_series_that_was_0(
    metrics: Metrics,
    status: int | None,
    flags: tuple[str, ...],
    model: str,
    version: str | None,
) -> None:
    before = {each for each in series(metrics) if each[0] == "headgate_answers_total"}
    counts = RequestCounts(metrics, lambda: POLICY)
    admission = {**ADMISSION, "model": model, **({"version": version} if version else {})}
    for usage in ({}, {"status": str(status or 200)}):
        counts.count(record(status=status, flags=flags, admission=admission, usage=usage))
        counts.count(record(status=status, flags=flags, admission=admission, upstream_rx_s=None))
    after = {each for each in series(metrics) if each[0] == "headgate_answers_total"}
    assert after == before


NAMES = ["x" * 10_000, "a\nb", 'a"} 1\nheadgate_evil{x="', "tiny\x00", "-"]


def test_a_hundred_thousand_names_of_clients_make_no_series(metrics: Metrics) -> None:
    counts = RequestCounts(metrics, lambda: POLICY)
    whole = record(admission={**ADMISSION, "model": "split", "tenant": "acme", "version": "v1"})
    counts.count(whole)
    counts.count(record(admission={}, usage={}, caller={}, request={}))
    counts.count(record(admission={**ADMISSION, "model": "gone", "tenant": "gone"}))
    before = series(metrics)
    for number in range(100_000):
        name = f"{NAMES[number % len(NAMES)]}{number}"
        counts.count(renamed(whole, name))
    assert series(metrics) == before


def renamed(whole: UsageRecord, name: str) -> UsageRecord:
    """The record of a client that names everything itself."""
    return msgspec.structs.replace(
        whole, model=name, tenant=name, version=name, user=name, key=name, requested_model=name
    )


def test_a_process_tells_its_version_and_its_memory(metrics: Metrics) -> None:
    names = {name for name, *_ in series(metrics)}
    assert {"headgate_build_info", "process_resident_memory_bytes"} <= names


def test_an_empty_policy_has_the_series_of_refused_requests(metrics: Metrics) -> None:
    empty = Metrics(CollectorRegistry(), FakeClock())
    start_policy_series(empty, CompiledPolicy(models={}, tenants={}, keys={}))
    assert ("headgate_answers_total", "-", "-", "5xx", "-") in series(empty)
