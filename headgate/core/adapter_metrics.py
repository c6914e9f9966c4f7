"""The metrics of adapters on vLLM's pods."""

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge

STEPS = ("waiting", "copying", "loading", "loaded", "failed")
"""The steps of a version on a pod."""
RESULTS = ("loaded", "delayed", "failed")


class AdapterMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    GAUGE_MODES: ClassVar = {
        "headgate_adapter_places": "max",
        "headgate_adapters_lead": "max",
    }
    """How the values of several workers become one: only the parent has any."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter(
            "headgate_adapter_loads",
            "Loads of adapters on pods by this replica: done (loaded), to be tried again (delayed),"
            " or never again (failed).",
            labelnames=("result",),
            registry=registry,
        )
        self.unloads = Counter(
            "headgate_adapter_unloads",
            "Adapters that this replica has unloaded from pods.",
            registry=registry,
        )
        self.places = Gauge(
            "headgate_adapter_places",
            "Places of adapters on pods by step, at the replica that leads.",
            labelnames=("step",),
            registry=registry,
        )
        self.leads = Gauge(
            "headgate_adapters_lead",
            "1 if this replica reconciles the adapters, 0 if another one does.",
            registry=registry,
        )
