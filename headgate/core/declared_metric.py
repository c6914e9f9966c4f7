"""A metric that is declared once, in a table, and registered by each program that has the table."""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from headgate.core.loop_metrics import LoopCounter, LoopHistogram
from headgate.core.metric_children import remembering


class Registering(Protocol):
    """An instance of the class that has the table."""

    registry: CollectorRegistry


M = TypeVar("M", Counter, Gauge, Histogram, LoopCounter, LoopHistogram)


class Declared(Generic[M]):
    """A row of the table of metrics. Each `Metrics` registers its own metric for it.

    The registered metric lies in the instance under the row's name. Python looks there before it
    asks this descriptor, so `metrics.tokens` is that metric.
    """

    def __init__(self, kind: Callable[..., M], name: str, text: str, **options: Any) -> None:
        """`options` are those of `kind`: `labelnames`, and `buckets` of a histogram.

        Each gauge has a `multiprocess_mode`: how the values of several workers become one.
        """
        self.name = name
        self.gauge_mode: str | None = options.get("multiprocess_mode")
        self._build: Callable[..., M] = partial(kind, name, text, **options)
        self._attribute = ""

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute

    def __get__(self, metrics: object, owner: type) -> M:
        raise AttributeError(f"{self._attribute} is not registered")

    def register(self, metrics: Registering) -> None:
        """Registers the metric and makes it the attribute of `metrics`."""
        metric = self._build(registry=metrics.registry)
        if isinstance(metric, MetricWrapperBase):
            remembering(metric)
        vars(metrics)[self._attribute] = metric
