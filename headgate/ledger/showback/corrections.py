"""Corrections of a closed month, as lines that name it: late records, and repricings. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace

from headgate.ledger.showback.values import Line, MonthReport, Usage

_REPRICING = "repricing "


class RowsGoneError(Exception):
    """The ledger has less than the closed month: its records were dropped."""


def repricing_line(name: str, month: str, whose: tuple[str, str, str], cost_nanos: int) -> Line:
    """The difference of a repricing for a tenant, person and model. Its price version names it."""
    tenant, person, model = whose
    return Line(
        tenant=tenant,
        person=person,
        model=model,
        base=model,
        label="",
        price_version=f"{_REPRICING}{name}",
        reason=None,
        corrects=month,
        usage=Usage(cost_nanos=cost_nanos),
    )


def is_of_repricing(line: Line) -> bool:
    """Whether the line is a correction by a repricing, and not by late records."""
    return line.corrects is not None and line.price_version.startswith(_REPRICING)


def unbooked(ordered: Iterable[Line], closed: Sequence[MonthReport]) -> list[Line]:
    """The lines of repricings that correct one of the closed months, and that none of them has."""
    months = {one.period.month for one in closed}
    booked = {line.price_version for one in closed for line in one.lines if is_of_repricing(line)}
    return [
        line for line in ordered if line.corrects in months and line.price_version not in booked
    ]


def booked_of(month: str, closed: Sequence[MonthReport]) -> list[Line]:
    """The lines of a closed month, and those of its late records in the other closed months."""
    own = [one for one in closed if one.period.month == month]
    lines = [line for one in own for line in one.lines if line.corrects is None]
    late = [line for one in closed for line in one.lines if line.corrects == month]
    return lines + [line for line in late if not is_of_repricing(line)]


def late_lines(month: str, now: Sequence[Line], booked: Iterable[Line]) -> list[Line]:
    """The lines of `now` without what is booked already, each as a correction of `month`.

    `booked` are those of `booked_of`. Raises RowsGoneError if something booked is no longer there.
    """
    before: dict[tuple[str, ...], Usage] = {}
    for line in booked:
        before[_key(line)] = _sum(before.get(_key(line), Usage()), line.usage, 1)
    late = []
    for line in now:
        usage = _sum(line.usage, before.pop(_key(line), Usage()), -1)
        if min(astuple(usage)) < 0:
            raise RowsGoneError(month)
        if usage.requests:
            late.append(replace(line, usage=usage, corrects=month, used_nanos=0, idle_nanos=0))
    if before:
        raise RowsGoneError(month)
    return late


def _key(line: Line) -> tuple[str, ...]:
    reason = line.reason or ""
    return (
        line.tenant, line.person, line.model, line.base, line.label, line.price_version, reason,
    )  # fmt: skip


def _sum(one: Usage, other: Usage, sign: int) -> Usage:
    return Usage(
        requests=one.requests + sign * other.requests,
        input_tokens=one.input_tokens + sign * other.input_tokens,
        cached_tokens=one.cached_tokens + sign * other.cached_tokens,
        output_tokens=one.output_tokens + sign * other.output_tokens,
        reasoning_tokens=one.reasoning_tokens + sign * other.reasoning_tokens,
        audio_seconds=one.audio_seconds + sign * other.audio_seconds,
        estimated_tokens=one.estimated_tokens + sign * other.estimated_tokens,
        cost_nanos=one.cost_nanos + sign * other.cost_nanos,
        hits=one.hits + sign * other.hits,
        hit_tokens=one.hit_tokens + sign * other.hit_tokens,
    )
