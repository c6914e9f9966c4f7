"""One picture of a plan: the waiting time by the number of pods, with the objective's line."""

from collections.abc import Callable
from typing import TypeAlias
from xml.sax.saxutils import escape

from headgate.capacity.forecast import SHOWN_AROUND, Objective, Point
from headgate.capacity.plan import ModelPlan

_Scale: TypeAlias = Callable[[float], float]
_WIDTH, _HEIGHT, _MARGIN = 640, 300, 56
_TOP = 3
"""The top of the chart, in units of the objective. Longer times are drawn there."""
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#334}"
    ".axis{stroke:#99a;stroke-width:1}"
    ".bound{stroke:#b3261e;stroke-width:1.5;stroke-dasharray:6 4}"
    ".range{stroke:#3556c8;stroke-width:2;opacity:.45}"
    ".median{fill:#3556c8}.chosen{fill:#1b7f4d}"
)


def as_svg(plans: list[ModelPlan], objective: Objective) -> str:
    """An SVG with one chart for each model, one below the other."""
    charts = [
        f'<g transform="translate(0 {number * _HEIGHT})">{_chart(plan, objective)}</g>'
        for number, plan in enumerate(plans)
    ]
    height = _HEIGHT * max(1, len(plans))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' role="img"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(charts)}</svg>\n"
    )


def _chart(plan: ModelPlan, objective: Objective) -> str:
    points = _shown(plan)
    top_s = _TOP * objective.ttft_s

    def y(seconds: float) -> float:
        share = min(seconds, top_s) / top_s
        return _HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN)

    def x(number: int) -> float:
        return _MARGIN + (number + 0.5) * (_WIDTH - 2 * _MARGIN) / len(points)

    quantile = f"p{objective.quantile * 100:g}"
    title = f"{plan.traffic.model}: {quantile} of the time to the first token, by pods"
    base = _HEIGHT - _MARGIN
    parts = [
        f'<text x="{_MARGIN}" y="28">{escape(title)}</text>',
        f'<line class="axis" x1="{_MARGIN}" y1="{base}" x2="{_WIDTH - _MARGIN}" y2="{base}"/>',
        f'<line class="bound" x1="{_MARGIN}" y1="{y(objective.ttft_s):.1f}"'
        f' x2="{_WIDTH - _MARGIN}" y2="{y(objective.ttft_s):.1f}"/>',
        f'<text x="{_MARGIN}" y="{y(objective.ttft_s) - 6:.1f}">'
        f"objective {_text(objective.ttft_s)}</text>",
    ]
    for number, point in enumerate(points):
        is_below = point.ttft_s <= objective.ttft_s
        label = _text(point.ttft_s) + (" ↑" if point.ttft_s > top_s else "")
        label_y = y(point.ttft_s) + (22 if is_below else -10)
        parts.append(
            f'<text x="{x(number):.1f}" y="{label_y:.1f}" text-anchor="middle">{label}</text>'
        )
        parts.append(_mark(point, x(number), y, point.pods == plan.forecast.pods))
    return "".join(parts)


def _mark(point: Point, x: float, y: _Scale, is_chosen: bool) -> str:
    low_s, high_s = point.ttft_range_s
    kind = "chosen" if is_chosen else "median"
    pods = f"{point.pods} pod{'' if point.pods == 1 else 's'}"
    return (
        f'<line class="range" x1="{x:.1f}" y1="{y(low_s):.1f}" x2="{x:.1f}" y2="{y(high_s):.1f}"/>'
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y(point.ttft_s):.1f}" r="5"/>'
        f'<text x="{x:.1f}" y="{_HEIGHT - _MARGIN + 20}" text-anchor="middle">{pods}</text>'
    )


def _shown(plan: ModelPlan) -> list[Point]:
    """The points around the answer; without an answer, the largest numbers of pods."""
    points, answer = plan.forecast.points, plan.forecast.pods
    if answer is None:
        return list(points[-2 * SHOWN_AROUND :])
    return [point for point in points if abs(point.pods - answer) <= SHOWN_AROUND]


def _text(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
