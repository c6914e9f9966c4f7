"""Counters and histograms of the event loop, for what each request counts.

Those of prometheus_client take a lock and check their labels at each count, because any thread may
call them. These are counted on the loop alone, and are as cheap as an addition. Rare metrics and
those of threads stay with prometheus_client.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import inf
from time import time
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

Sample = tuple[str, Mapping[str, str], float, Exemplar | None]
"""The suffix of its name, the labels beside those of its child, the value, and an exemplar."""


class Count:
    """The count of one set of labels.

    The hooks add to `value` itself, as this costs no call.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Adds an amount, which is never negative."""
        self.value += amount

    def samples(self) -> Iterator[Sample]:
        """The count so far."""
        yield "_total", {}, self.value, None


class Spread:
    """The values of one set of labels: how many lie below each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` rise, and the last one is infinite."""
        self._bounds = bounds
        self._counts = [0] * len(bounds)
        self._exemplars: dict[int, Exemplar] = {}
        self._sum = 0.0

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Adds a value. Each bucket keeps the trace of its last value that has one."""
        index = bisect_left(self._bounds, value)
        self._counts[index] += 1
        self._sum += value
        if trace_id is not None:
            self._exemplars[index] = Exemplar({"trace_id": trace_id}, value, time())

    def samples(self) -> Iterator[Sample]:
        """The values so far: each bucket has those of the smaller ones, too."""
        below = 0
        for index, bound in enumerate(self._bounds):
            below += self._counts[index]
            yield "_bucket", {"le": _written(bound)}, float(below), self._exemplars.get(index)
        yield "_count", {}, float(below), None
        yield "_sum", {}, self._sum, None


def _written(bound: float) -> str:
    """The bound as Prometheus writes it."""
    return "+Inf" if bound == inf else repr(bound)


Child = TypeVar("Child", Count, Spread)


class _Labelled(Collector, Generic[Child]):
    """A metric with labels. `labels` returns the child of some values, which it makes once.

    There are few children, as labels come from closed sets.
    """

    labels: Callable[..., Child]

    def __init__(
        self,
        family: Metric,
        labelnames: Sequence[str],
        registry: CollectorRegistry,
        new: Callable[[], Child],
    ) -> None:
        self._family = family
        self._labelnames = tuple(labelnames)
        self._new: Callable[[], Child] = new
        self._children: dict[tuple[str, ...], tuple[Child, float]] = {}
        self.labels = cache(self._child)
        registry.register(self)

    def _child(self, *values: object) -> Child:
        if len(values) != len(self._labelnames):
            raise ValueError(f"{self._family.name} has the labels {', '.join(self._labelnames)}")
        key = tuple(str(value) for value in values)
        return self._children.setdefault(key, (self._new(), time()))[0]

    def describe(self) -> Iterable[Metric]:
        """The family without its samples."""
        return [self._empty()]

    def collect(self) -> Iterable[Metric]:
        """The family with the samples of all children, and when each began."""
        family = self._empty()
        for values, (child, began_s) in list(self._children.items()):
            labels = dict(zip(self._labelnames, values, strict=True))
            for suffix, more, value, exemplar in child.samples():
                family.add_sample(family.name + suffix, {**labels, **more}, value, None, exemplar)
            family.add_sample(f"{family.name}_created", labels, began_s)
        return [family]

    def _empty(self) -> Metric:
        return Metric(self._family.name, self._family.documentation, self._family.type)


class LoopCounter(_Labelled[Count]):
    """A counter with labels, as prometheus_client's."""

    def __init__(
        self, name: str, text: str, labelnames: Sequence[str], registry: CollectorRegistry
    ) -> None:
        super().__init__(Metric(name, text, "counter"), labelnames, registry, Count)


class LoopHistogram(_Labelled[Spread]):
    """A histogram with labels, as prometheus_client's."""

    def __init__(
        self,
        name: str,
        text: str,
        labelnames: Sequence[str],
        registry: CollectorRegistry,
        *,
        buckets: Sequence[float],
    ) -> None:
        bounds = (*map(float, buckets), inf)
        family = Metric(name, text, "histogram")
        super().__init__(family, labelnames, registry, lambda: Spread(bounds))
