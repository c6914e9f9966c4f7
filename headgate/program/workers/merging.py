"""The metrics of several processes as those of one. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

Rule: TypeAlias = Callable[[float, float], float]
"""Joins two values of a gauge."""

_ADDED_UP = frozenset({"counter", "histogram", "summary"})
_CREATED = "_created"


def _added(first: float, second: float) -> float:
    return first + second


def _oldest(first: float, second: float) -> float:
    """The earlier time. A time of 0 is none: the parent of the workers has none."""
    return min(first or second, second or first)


RULES: Mapping[str, Rule] = {"min": min, "max": max, "sum": _added, "oldest": _oldest}
"""By the word for it in the table of metrics."""


def merged(processes: Iterable[Iterable[Metric]], gauges: Mapping[str, Rule]) -> list[Metric]:
    """One family for each name, with each sample once.

    Counters and histograms are added up. A gauge is joined by its rule in `gauges`; without one
    its values are added up. When a series began is the earliest time of all.
    """
    families: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], Sample]] = {}
    for family in (family for process in processes for family in process):
        families.setdefault(family.name, family)
        rule = gauges.get(family.name, _added)
        known = samples.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            before = known.get(key)
            join = min if sample.name.endswith(_CREATED) else rule
            known[key] = sample if before is None else _joined(before, sample, join)
    return [_family(families[name], list(known.values())) for name, known in samples.items()]


def counts(families: Iterable[Metric]) -> list[Metric]:
    """The families that stay true of a process that has ended: counters and histograms."""
    return [family for family in families if family.type in _ADDED_UP]


def registry_of(families: Sequence[Metric]) -> CollectorRegistry:
    """A registry that shows these families as they are."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(families))
    return registry


class _Shown(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _joined(first: Sample, second: Sample, rule: Rule) -> Sample:
    return first._replace(
        value=rule(first.value, second.value), exemplar=second.exemplar or first.exemplar
    )


def _family(like: Metric, samples: list[Sample]) -> Metric:
    family = Metric(like.name, like.documentation, like.type, like.unit)
    family.samples = samples
    return family
