"""An earlier plan beside what came."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headgate.capacity.forecast import quantile
from headgate.capacity.records import Demand
from headgate.capacity.traffic import busiest_window
from headgate.core.errors import OperatorError


class _Point(msgspec.Struct):
    pods: int
    ttft_s: float
    ttft_range_s: tuple[float, float]


class _Model(msgspec.Struct):
    model: str
    pods: int | None
    window_s: float
    requests_per_s: float
    points: list[_Point]


class _Objective(msgspec.Struct):
    ttft_s: float
    quantile: float


class EarlierPlan(msgspec.Struct):
    """The fields of a plan in JSON that are compared."""

    made: str
    objective: _Objective
    models: list[_Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model: the forecast, and its busiest window since then. None: no such requests came."""

    model: str
    planned_requests_per_s: float
    came_requests_per_s: float
    planned_ttft_s: float | None
    planned_range_s: tuple[float, float] | None
    came_ttft_s: float | None

    @property
    def text(self) -> str:
        """One line for people."""
        came = "no streams" if self.came_ttft_s is None else f"{self.came_ttft_s:.3g} s"
        planned = "none" if self.planned_ttft_s is None else f"{self.planned_ttft_s:.3g} s"
        return (
            f"{self.model}: planned {self.planned_requests_per_s:.3g} requests/s, came"
            f" {self.came_requests_per_s:.3g} ({self._change}); planned time to the first token"
            f" {planned}, came {came}"
        )

    @property
    def _change(self) -> str:
        if not self.planned_requests_per_s:
            return "nothing was planned"
        return f"{self.came_requests_per_s / self.planned_requests_per_s - 1:+.0%}"


def load_plan(path: Path) -> EarlierPlan:
    """The plan of a file. Raises OperatorError if it is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=EarlierPlan)
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise OperatorError(
            f"{path}: is not a plan of `headgate plan --format json`: {error}"
        ) from None


def compare(plan: EarlierPlan, demand: Demand) -> list[Comparison]:
    """Each model of the plan beside its busiest window in the records."""
    return [_compare(model, plan.objective.quantile, demand) for model in plan.models]


def _compare(model: _Model, share: float, demand: Demand) -> Comparison:
    arrivals = demand.arrivals.get(model.model, [])
    traffic = busiest_window(model.model, arrivals, model.window_s)
    begin_s = traffic.begin_s
    in_window = [
        ttft_s
        for at_s, ttft_s in demand.ttft_s.get(model.model, [])
        if begin_s <= at_s < begin_s + model.window_s
    ]
    chosen = next((point for point in model.points if point.pods == model.pods), None)
    return Comparison(
        model=model.model,
        planned_requests_per_s=model.requests_per_s,
        came_requests_per_s=len(traffic.arrivals) / model.window_s,
        planned_ttft_s=None if chosen is None else chosen.ttft_s,
        planned_range_s=None if chosen is None else chosen.ttft_range_s,
        came_ttft_s=quantile(in_window, share) if in_window else None,
    )


def comparisons_as_json(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a JSON list."""
    rows: list[dict[str, Any]] = [
        {
            "model": each.model,
            "planned_requests_per_s": each.planned_requests_per_s,
            "came_requests_per_s": round(each.came_requests_per_s, 3),
            "planned_ttft_s": each.planned_ttft_s,
            "planned_range_s": each.planned_range_s,
            "came_ttft_s": each.came_ttft_s,
        }
        for each in comparisons
    ]
    return json.dumps(rows, indent=2)
