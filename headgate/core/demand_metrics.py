"""The metrics of the demand for pods, by which a deployment scales.

Requests and tokens that are in flight are the difference of two counters. A gauge would break, as
one replica lets a request in and another one hears of its end.
"""

from prometheus_client import CollectorRegistry

from headgate.core.loop_metrics import LoopCounter


class DemandMetrics:
    """Registered in `registry` with the rest of the program's metrics.

    `base` is the base model whose pods compute a request, `version` that of its pods.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reserved_tokens = LoopCounter(
            "headgate_reserved_tokens",
            "Tokens of estimates that the limits let in, by the pods that compute them.",
            labelnames=("base", "version"),
            registry=registry,
        )
        self.settled_tokens = LoopCounter(
            "headgate_settled_tokens",
            "Those of the reserved tokens whose request has ended.",
            labelnames=("base", "version"),
            registry=registry,
        )
        self.reserved_requests = LoopCounter(
            "headgate_reserved_requests",
            "Requests that the limits let in, by the pods that compute them.",
            labelnames=("base", "version"),
            registry=registry,
        )
        self.settled_requests = LoopCounter(
            "headgate_settled_requests",
            "Those of the reserved requests that have ended.",
            labelnames=("base", "version"),
            registry=registry,
        )
        self.capacity_refusals = LoopCounter(
            "headgate_capacity_refusals",
            "Requests without an answer because pods were missing or full, not because of a limit.",
            labelnames=("base", "version"),
            registry=registry,
        )
