"""The series of metrics that exist with 0 from the start.

`increase()` of Prometheus does not see a counter's first value. A series that is born in a burst
would hide the burst. So each series without a tenant begins at 0.
"""

import platform
from itertools import product

from prometheus_client import CollectorRegistry, Info, ProcessCollector

import headgate
from accesslog.types import Ended
from headgate.core.contract import ABSENT
from headgate.core.errors import Refusal
from headgate.core.ledger_metrics import NOTICE_CHANNELS, NOTICE_OUTCOMES, OUTCOMES
from headgate.core.metrics import Metrics
from headgate.core.placement_metrics import Choice
from headgate.core.policy import CompiledPolicy, OnOutage
from headgate.core.request_metrics import CLASSES
from headgate.core.settlement import Source
from headgate.dataplane.box import CertifiedListener
from ratelimit.store.protocol import SettleOutcome

_ENDED = (*Ended, ABSENT)
_RELOADS = ("applied", "refused")
_SETTLED = tuple(
    outcome.value
    for outcome in (*Source, *SettleOutcome)
    if outcome is not SettleOutcome.SETTLED  # counted by its source
)
_CODES = tuple(refusal.code for refusal in Refusal)
_DECISIONS = {
    "ext_authz": ("ok", "preflight", "health", *_CODES),
    "ext_proc": ("ok", *_CODES),
    "ratelimit": ("ok", Refusal.OVER_LIMIT.code, "store_error", "invalid_descriptor"),
}


GAUGE_MODES = {
    "process_start_time_seconds": "min",
    "process_max_fds": "max",
    "headgate_build": "max",
}
"""How the values of several workers become one, for the series of the process."""


def gauge_of(registry: CollectorRegistry, name: str) -> float:
    """The value of a gauge without labels. No other series is looked at: there may be very many."""
    (family,) = registry.restricted_registry([name]).collect()
    return float(family.samples[0].value)


def start_series(metrics: Metrics) -> None:
    """Begins the series whose labels are our own words, and those of the process itself."""
    for hook, decisions in _DECISIONS.items():
        for decision in decisions:
            metrics.decisions.labels(hook, decision)
    for via, outcome in product(("ratelimit", "accesslog"), _SETTLED):
        metrics.settlements.labels(via, outcome)
    for operation in ("reserve", "settle", "peek", "count"):
        metrics.store_errors.labels(operation)
    for policy, decision in product(OnOutage, ("admitted", "refused")):
        metrics.outage_decisions.labels(policy, decision)
    for outcome in ("written", "failed", "left_out"):
        metrics.records.labels(outcome)
    for how in Choice:
        metrics.of_placement.choices.labels(how)
    for outcome in OUTCOMES:
        metrics.of_ledger.records.labels(outcome)
    for delivery in product(NOTICE_CHANNELS, NOTICE_OUTCOMES):
        metrics.of_ledger.notice_deliveries.labels(*delivery)
    for result in _RELOADS:
        metrics.policy_reloads.labels(result)
        metrics.ratelimit_config_reloads.labels(result)
    _start_certificates(metrics)
    ProcessCollector(registry=metrics.registry)
    build = Info("headgate_build", "The running version of Headgate.", registry=metrics.registry)
    build.info({"version": headgate.__version__, "python": platform.python_version()})


def _start_certificates(metrics: Metrics) -> None:
    for listener in CertifiedListener:
        for result in _RELOADS:
            metrics.certificate_reloads.labels(listener, result)
        for gauge in (
            metrics.certificate_refused,
            metrics.certificate_loaded_seconds,
            metrics.certificate_expires_seconds,
        ):
            gauge.labels(listener)


def start_policy_series(metrics: Metrics, policy: CompiledPolicy) -> None:
    """Begins the series of the policy's models and versions."""
    of_requests = metrics.of_requests
    for labels in product((ABSENT,), (ABSENT,), CLASSES, (Ended.CLIENT_LEFT, ABSENT)):
        of_requests.answers.labels(*labels)  # refused before a model was known
    for model in policy.models.values():
        names = () if model.versions is None else model.versions.names
        for version in (*names, ABSENT):
            for status_class, ended in product(CLASSES, _ENDED):
                of_requests.answers.labels(model.name, version, status_class, ended)
            of_requests.seconds.labels(model.name, version)
            metrics.ttft_seconds.labels(model.name, version)
            for demand in (
                metrics.demand.reserved_requests,
                metrics.demand.settled_requests,
                metrics.demand.reserved_tokens,
                metrics.demand.settled_tokens,
                metrics.demand.capacity_refusals,
            ):
                demand.labels(model.base, version)
