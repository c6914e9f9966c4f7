"""A dashboard and its panels, and the JSON that Grafana imports (schema 39, Grafana 10.4 or newer).

The JSON is plain: a few dozen lines here say all that these boards need of Grafana's model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

RATE = "$__rate_interval"
"""Grafana's window for a rate: at least four scrapes."""
_SOURCE = {"type": "prometheus", "uid": "$datasource"}
_WIDTH, _HEIGHT, _ROW = 8, 8, 24


class Unit(StrEnum):
    """Grafana's names of units."""

    NUMBER = "short"
    SECONDS = "s"
    PER_SECOND = "reqps"
    RATIO = "percentunit"
    BYTES = "bytes"


class Only(StrEnum):
    """Where the metrics of a panel come from, if not from Headgate or vLLM."""

    MESH = "mesh"
    """Istio's and Envoy's metrics, with the labels of Istio's bootstrap."""


@dataclass(frozen=True, slots=True)
class Line:
    """A query, and how its series are called."""

    promql: str
    legend: str = ""

    def with_values(self, values: Mapping[str, str]) -> "Line":
        """The query with a value in the place of each variable."""
        promql = self.promql
        for name, value in values.items():
            promql = promql.replace(name, value)
        return replace(self, promql=promql)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One graph, or a single number if `is_number`."""

    title: str
    lines: Sequence[Line]
    unit: Unit = Unit.NUMBER
    is_number: bool = False
    only: Only | None = None
    text: str = ""
    """What the reader should know; shown at the title."""

    def with_values(self, values: Mapping[str, str]) -> "Panel":
        """The panel with a value in the place of each variable, such as `$model`."""
        return replace(self, lines=tuple(line.with_values(values) for line in self.lines))


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of the board: the values of a label of a metric."""

    name: str
    metric: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The dashboard of one reader. Each panel obeys all of `variables`."""

    name: str
    title: str
    variables: Sequence[Variable] = ()
    panels: Sequence[Panel]

    def grafana(self) -> dict[str, Any]:
        """The model that Grafana imports."""
        return {
            "title": self.title,
            "uid": f"headgate-{self.name}",
            "schemaVersion": 39,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": [_source_choice(), *map(_choice, self.variables)]},
            "panels": [_panel(number, panel) for number, panel in enumerate(self.panels)],
        }


def quantile(share: str, histogram: str, by: str, labels: str) -> str:
    """PromQL: a quantile of a histogram, for each value of the labels `by`."""
    rate = f"rate({histogram}_bucket{{{labels}}}[{RATE}])"
    return f"histogram_quantile({share}, sum by ({', '.join(filter(None, ('le', by)))}) ({rate}))"


def mean(histogram: str, by: str, labels: str) -> str:
    """PromQL: the mean of a histogram, for each value of the labels `by`."""
    parts = [f"sum by ({by}) (rate({histogram}_{part}{{{labels}}}[{RATE}]))" for part in PARTS]
    return " / ".join(parts)


PARTS = ("sum", "count")


def _source_choice() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _choice(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({variable.metric}, {variable.label})",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    at = number * _WIDTH
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.text,
        "type": "stat" if panel.is_number else "timeseries",
        "datasource": _SOURCE,
        "gridPos": {
            "h": _HEIGHT,
            "w": _WIDTH,
            "x": at % _ROW,
            "y": at // _ROW * _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": line.promql, "legendFormat": line.legend}
            for index, line in enumerate(panel.lines)
        ],
    }
