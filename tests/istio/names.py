"""The names of all metrics: ours, vLLM's, Istio's and Envoy's."""

import re
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry

from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.program.series import start_series
from headgate.simulator.exposition import Exposition
from headgate.simulator.metrics import EngineMetrics
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.settings import Settings
from ratelimit.fullness import Fullness
from tests.fakes import FakeClock

HERE = Path(__file__).resolve().parent
ISTIO = HERE.parents[1] / "istio"
COMPONENTS = ISTIO / "components"
ISTIOS = {"istio_requests_total"}
KUBERNETES = {"kube_deployment_spec_replicas", "kube_deployment_status_replicas_unavailable"}
"""Of kube-state-metrics."""
RECONCILED = {"headgate_reconciled_tokens", "headgate_unexplained_tokens"}
"""Of the file that `headgate ledger reconcile --metrics-file` writes."""
PROMETHEUS_OWN = {"up", "ALERTS"}
ONE_BOX_ENVOY = {"envoy_cluster_upstream_cx_connect_fail", "envoy_cluster_upstream_rq_xx"}
"""Metrics of an Envoy that only the rules of one box read: Istio's allow-list leaves them out."""
_LABELS = {"envoy_cluster_name", "envoy_response_code_class"}
_METRIC = re.compile(
    r"(?<![\w.\"])(?:(?:vllm:|headgate_|istio_|envoy_|kube_|process_)[a-z0-9_]+"
    r"|headgate:[a-z0-9_:]+|up|ALERTS)(?![\w:])"
)
_TAGS = (re.compile(r"^(cluster)\..+?;(\..+)$"), re.compile(r"^(http)\.[\w.\[\]:]+;(\..+)$"))
"""Istio's bootstrap turns the name of the cluster or listener in a statistic into a label."""


def metrics_in(promql: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(_METRIC.findall(promql)) - _LABELS


@cache
def known_metrics() -> frozenset[str]:
    """All names that Prometheus can have."""
    policy = CollectorRegistry()
    start_series(Metrics(policy, SystemClock()))
    policy.register(Fullness(SystemClock().now_s))
    page = Exposition("m", EngineMetrics(FakeClock()), Scheduler(Settings())).page().decode()
    vllms = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if line[:1] not in ("#", "")}
    others = RECONCILED | ISTIOS | KUBERNETES | PROMETHEUS_OWN | set(envoy_metrics())
    return frozenset(_exposed(policy) | vllms | others)


def _exposed(policy: CollectorRegistry) -> set[str]:
    suffixes = {
        "counter": ("_total",),
        "info": ("_info",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    return {
        family.name + suffix
        for family in policy.collect()
        for suffix in suffixes.get(family.type, ("",))
    }


@cache
def envoy_metrics() -> dict[str, str]:
    """Envoy's statistics: Prometheus' name to its own."""
    lines = (HERE / "envoy_stats.txt").read_text().splitlines()
    return {_prometheus(line): line for line in lines if not line.startswith("#")}


def _prometheus(statistic: str) -> str:
    name = statistic
    for tag in _TAGS:
        name = tag.sub(r"\1\2", name)
    return "envoy_" + re.sub(r"\W", "_", name)
