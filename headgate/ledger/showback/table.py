"""The parts of a sheet: its columns, its cells and their units. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias


class Unit(StrEnum):
    """The content of the cells of a column. Money is in nanos, per cent are decimals.

    A rate is money for one of something: it is shown with six decimals, where money has cents.
    """

    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    RATE = "rate"
    PERCENT = "percent"


Cell: TypeAlias = str | int | Decimal | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name and what its cells hold. `adds_up` if a total may be below it."""

    name: str
    unit: Unit
    adds_up: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. `total` is the row below it, None if there is none."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None


def column_sum(rows: Sequence[tuple[Cell, ...]], at: int) -> int:
    """The sum of a column, in which an empty cell counts nothing."""
    return sum(cell for row in rows if isinstance(cell := row[at], int))
