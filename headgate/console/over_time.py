"""A measure over time, as bars: the two largest values of a group, and the rest. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from headgate.console import words
from headgate.console.charts import Bars, Column, bars
from headgate.ledger.sums import Row

MEASURES = {
    "cost": ("cost_nanos",),
    "requests": ("requests",),
    "tokens": ("prompt_tokens", "completion_tokens"),
    "tokens in": ("prompt_tokens",),
    "tokens out": ("completion_tokens",),
    "refused": ("refused",),
    "failed": ("failed",),
}
"""The measures by name, each with the sums that it adds."""
NANOS_PER_UNIT = 100_000
"""A chart of money counts in these, so that its lines are round."""
_FILLS = ("f1", "f2", "fq")
_MAX_LABELS = 8


@dataclass(frozen=True, slots=True)
class OverTime:
    """The chart, and its legend: the fill and the name of each part."""

    bars: Bars
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Slots:
    """The steps of a chart: their unit, their zone, and the local time at which each begins."""

    unit: str
    zone: ZoneInfo
    begins: tuple[datetime, ...]

    def word(self, at: datetime) -> str:
        """The name of a step."""
        return f"{at:%-d %b}" if self.unit == "day" else f"{at:%H}:00"


def slots_of(begin: datetime, end: datetime, unit: str, zone: ZoneInfo) -> Slots:
    """The steps of `unit`, `hour` or `day`, that hold the time from `begin` to `end`."""
    step = timedelta(**{f"{unit}s": 1})
    at = begin.astimezone(zone).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    at = at.replace(hour=0) if unit == "day" else at
    found = []
    while at < end.astimezone(zone).replace(tzinfo=None):
        found.append(at)
        at += step
    return Slots(unit, zone, tuple(found))


def over_time(rows: Sequence[Row], measure: str, slots: Slots) -> OverTime:
    """The chart of `rows`, which `sums_over_time` returns, with a bar for each slot."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[_name(row)] = sums.get(_name(row), 0) + _amount(row, measure)
    ranked = sorted(sums, key=lambda name: (-sums[name], name))
    shown = ranked if len(ranked) <= len(_FILLS) else ranked[: len(_FILLS) - 1]
    rest = len(ranked) - len(shown)
    fills = dict(zip((*shown, *([""] if rest else [])), _FILLS, strict=False))
    amounts = _by_slot(rows, measure, slots.zone, fills)
    every = max(1, -(-len(slots.begins) // _MAX_LABELS))
    columns = []
    for index, at in enumerate(slots.begins):
        parts = [(name, number) for name in fills if (number := amounts.get((at, name), 0))]
        said = "; ".join(f"{name or 'others'} {_said(number, measure)}" for name, number in parts)
        values = tuple((fills[name], number) for name, number in parts)
        label = slots.word(at) if index % every == 0 else ""
        title = f"{slots.word(at)}: {said or 'nothing'}"
        columns.append(Column(values=values, title=title, label=label))
    legend = tuple((fill, name or f"{rest} others") for name, fill in fills.items())
    return OverTime(bars(columns), legend)


def _by_slot(
    rows: Sequence[Row], measure: str, zone: ZoneInfo, fills: Mapping[str, str]
) -> dict[tuple[datetime, str], int]:
    """The amount of each slot and part. The part of all others has no name."""
    found: dict[tuple[datetime, str], int] = {}
    for row in rows:
        name = _name(row) if _name(row) in fills else ""
        key = row["time"].astimezone(zone).replace(tzinfo=None), name
        found[key] = found.get(key, 0) + _amount(row, measure)
    return found


def _name(row: Row) -> str:
    return "none" if row["name"] is None else str(row["name"])


def _amount(row: Row, measure: str) -> int:
    whole = sum(int(row[name]) for name in MEASURES[measure])
    return whole // NANOS_PER_UNIT if measure == "cost" else whole


def _said(number: int, measure: str) -> str:
    return words.money(number * NANOS_PER_UNIT) if measure == "cost" else words.count(number)
