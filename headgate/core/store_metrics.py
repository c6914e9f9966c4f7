"""The time that Redis takes, and the time without it."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class StoreMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "headgate_store_seconds",
            "Time in which Redis answered one operation of the limits.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.degraded_seconds = Counter(
            "headgate_store_degraded_seconds",
            "Seconds during which headgate_store_available was 0.",
            registry=registry,
        )
