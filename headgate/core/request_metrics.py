"""The metrics of finished requests: those that alerts read, and those of tenants.

Those that alerts read have no tenant, and all their series exist with 0 before the first request.
A tenant's series exist from its first request on: a policy may have 10,000 tenants.
"""

from typing import ClassVar

from prometheus_client import CollectorRegistry, Gauge

from headgate.core.loop_metrics import LoopCounter, LoopHistogram

_SECONDS_BUCKETS = (
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0,
    15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
CLASSES = ("2xx", "3xx", "4xx", "5xx", "none")
"""The classes of the client's status; `none` if it got none."""


class RequestMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    GAUGE_MODES: ClassVar = {"headgate_access_log_streams": "sum"}
    """How the values of several workers become one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answers = LoopCounter(
            "headgate_answers",
            "Finished requests, by the version that answered, the class of the client's status and"
            " how the answer ended (complete, client_left, upstream_broke, - for none).",
            labelnames=("model", "version", "class", "ended"),
            registry=registry,
        )
        self.seconds = LoopHistogram(
            "headgate_request_seconds",
            "Time from a request's start to its end, for requests that an upstream answered.",
            labelnames=("model", "version"),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.cost = LoopCounter(
            "headgate_cost",
            "Cost of the charged tokens, in the currency of the policy's prices.",
            labelnames=("tenant", "model"),
            registry=registry,
        )
        self.refusals = LoopCounter(
            "headgate_refusals",
            "Requests that a limit refused, by the limit's id.",
            labelnames=("tenant", "limit"),
            registry=registry,
        )
        self.access_log_streams = Gauge(
            "headgate_access_log_streams",
            "Proxies that send their access log here now. With none, no request has a record.",
            registry=registry,
        )
