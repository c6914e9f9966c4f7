"""Geometry of the charts. X is in per cent and y in pixels, so text never stretches. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10

HEIGHT, _TOP = 172, 16
GUTTER = 6
"""The part of the width, in per cent, that the labels of the grid have for themselves."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar: its class, its upper edge and its height."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of parts over a slot of the axis, with the words that name it."""

    x: float
    width: float
    parts: tuple[Part, ...]
    title: str
    label: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart of bars. `grid` holds the values of its lines with their y."""

    bars: tuple[Bar, ...]
    grid: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The input of one bar: a value of each kind, and its words."""

    values: tuple[tuple[str, int], ...]
    title: str
    label: str = ""


def bars(columns: Sequence[Column]) -> Bars:
    """The chart of these columns, on a scale with at most three lines."""
    step = _step(max((sum(v for _, v in one.values) for one in columns), default=0))
    scale = (HEIGHT - _TOP) / (2.25 * step)
    slot = (100 - GUTTER) / max(len(columns), 1)
    drawn = tuple(
        _bar(column, GUTTER + slot * index, slot, scale) for index, column in enumerate(columns)
    )
    return Bars(drawn, tuple((n * step, HEIGHT - n * step * scale) for n in (1, 2)))


def _bar(column: Column, x: float, slot: float, scale: float) -> Bar:
    y, parts = float(HEIGHT), []
    for kind, value in column.values:
        y -= value * scale
        parts.append(Part(kind, y, value * scale))
    return Bar(x, slot, tuple(parts), column.title, column.label)


def _step(highest: int) -> int:
    """A round number of which two and a quarter are above the highest value."""
    if highest <= 2:
        return 1
    wanted = highest / 2.2
    power = 10.0 ** int(log10(wanted))
    return next(ceil(n * power) for n in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if n * power >= wanted)


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a request, in microseconds from its begin. `kind` is its fill."""

    name: str
    kind: str
    start_us: int
    end_us: int
    measured_by: str

    @property
    def takes_us(self) -> int:
        return self.end_us - self.start_us


@dataclass(frozen=True, slots=True)
class Span:
    """A phase drawn on a time line. `label` is empty where it has no room."""

    phase: Phase
    x: float
    width: float
    label: str


@dataclass(frozen=True, slots=True)
class TimeLine:
    """Phases on one line, and the ticks below it: their x and milliseconds."""

    spans: tuple[Span, ...]
    ticks: tuple[tuple[float, float], ...]
    until_us: int


def time_line(phases: Sequence[Phase], until_us: int) -> TimeLine:
    """The phases until a moment; a phase beyond it is cut."""
    spans = []
    for phase in phases:
        if phase.start_us < until_us:
            x = 100 * phase.start_us / until_us
            width = max(100 * min(phase.end_us, until_us) / until_us - x, 0.12)
            spans.append(Span(phase, x, width, phase.name if width > 7 else ""))
    step = _step(max(until_us // 2, 1))
    ticks = [(100 * at / until_us, at / 1000) for at in range(0, until_us + 1, step)]
    return TimeLine(tuple(spans), tuple(ticks[:8]), until_us)
