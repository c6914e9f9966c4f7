"""The plan as a table and as JSON. The JSON is what `--check` reads later."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headgate.capacity.plan import ModelPlan, Shape, Wishes

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The lines of the records that are no demand of a model, or were guessed."""

    refused_by_limits: int = 0
    without_capacity: int = 0
    other_lines: int = 0
    models_without_curve: tuple[str, ...] = ()


def as_json(plans: Sequence[ModelPlan], wishes: Wishes, left_out: LeftOut, made: str) -> str:
    """The whole plan as one JSON object; `made` is the time of the plan."""
    document = {
        "schema": SCHEMA,
        "made": made,
        "objective": asdict(wishes.objective),
        "growth": wishes.growth,
        "zones": wishes.zones,
        "models": [_model(plan) for plan in plans],
        "left_out": asdict(left_out),
    }
    return json.dumps(document, indent=2)


def _model(plan: ModelPlan) -> dict[str, Any]:
    forecast = plan.forecast
    cost = plan.cost_per_month
    return {
        "model": plan.traffic.model,
        "pods": forecast.pods,
        "pods_in_zones": plan.pods_in_zones,
        "canary_pods": plan.canary_pods,
        "pods_without_cache": forecast.pods_without_cache,
        "gpu": plan.curve.gpu,
        "gpus": plan.gpus,
        "cost_per_month": None if cost is None else str(cost),
        "window_s": plan.traffic.window_s,
        "requests_per_s": round(forecast.requests_per_s, 3),
        "points": [asdict(point) for point in forecast.points],
        "curve": asdict(plan.curve),
        "shapes": [asdict(shape) for shape in plan.shapes],
    }


def as_table(plans: Sequence[ModelPlan], wishes: Wishes, left_out: LeftOut) -> str:
    """The plan for people: the answer of each model first, then what it rests on."""
    lines: list[str] = []
    for plan in plans:
        lines += [*_answer(plan, wishes), *_basis(plan), ""]
    return "\n".join([*lines, *_left_out(left_out)]).rstrip()


def _answer(plan: ModelPlan, wishes: Wishes) -> list[str]:
    forecast, objective = plan.forecast, wishes.objective
    goal = f"p{objective.quantile * 100:g} of the time to the first token <= {objective.ttft_s:g} s"
    if objective.per_token_s is not None:
        goal += f", from token to token <= {objective.per_token_s:g} s"
    head = f"{plan.traffic.model}: {forecast.requests_per_s:.3g} requests/s at the busiest time"
    chosen = forecast.chosen
    if chosen is None:
        return [f"{head}; no number of pods reaches {goal}"]
    lines = [
        f"{head}; {goal}",
        f"  pods              {forecast.pods}  (p{objective.quantile * 100:g}"
        f" {chosen.ttft_s:.3g} s, range {chosen.ttft_range_s[0]:.3g} to"
        f" {chosen.ttft_range_s[1]:.3g} s; {chosen.mean_running:.1f} sequences in a batch)",
    ]
    if wishes.zones > 1:
        lines.append(
            f"  in {wishes.zones} zones        {plan.pods_in_zones}  (one zone may be lost)"
        )
    if plan.canary_pods:
        lines.append(f"  for a canary      {plan.canary_pods}")
    lines.append(f"  GPUs              {plan.gpus} x {plan.curve.gpu}")
    if plan.cost_per_month is not None:
        lines.append(f"  cost per month    {plan.cost_per_month:,.2f}  (730 hours)")
    if forecast.pods_without_cache != forecast.pods:
        cold = forecast.pods_without_cache
        lines.append(f"  without cache     {'no number of pods' if cold is None else cold}")
    return lines


def _basis(plan: ModelPlan) -> list[str]:
    rows = [_HEADINGS, *(_cells(shape) for shape in plan.shapes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return [
        "",
        *(
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ),
        "",
        f"  service curve: {plan.curve.source}",
    ]


_HEADINGS = ("tenant", "requests", "users", "prompt p50/p95", "output p50/p95", "cached", "pause")


def _cells(shape: Shape) -> tuple[str, ...]:
    return (
        shape.tenant or "-",
        f"{shape.requests:,}",
        f"{shape.users:,}",
        f"{shape.prompt_tokens[0]:,}/{shape.prompt_tokens[1]:,}",
        f"{shape.output_tokens[0]:,}/{shape.output_tokens[1]:,}",
        f"{shape.cached_share:.0%}",
        f"{shape.pause_s:.0f} s",
    )


def _left_out(left_out: LeftOut) -> list[str]:
    counts = {
        "requests refused by limits: no demand for pods": left_out.refused_by_limits,
        "requests answered 503: counted by their estimate": left_out.without_capacity,
        "lines without a request for a model": left_out.other_lines,
    }
    lines = [f"{count:,} {text}" for text, count in counts.items() if count]
    if left_out.models_without_curve:
        names = ", ".join(left_out.models_without_curve)
        lines.append(f"no service curve, so not planned: {names}")
    return lines
