"""The values of a month's report. Money is in nanos (1e-9 of the currency), so sums are exact.

People are ids here. Their names are beside the report, and its checksum does not know them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum


class By(StrEnum):
    """The dimension by which the lines are grouped."""

    TENANT = "tenant"
    USER = "user"
    MODEL = "model"
    LABEL = "label"


class Reason(StrEnum):
    """Why a request was not billed, in the order in which the reasons are tried."""

    LIMIT = "limit"
    ACCESS = "access"
    ABORTED = "aborted"
    REQUEST = "request"
    FAILED = "failed"
    FREE = "free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A month by its calendar, and the same month by the calendar of the bill of hours.

    The begins are part of it, the ends are not. `clock_changes` are the days on which the clocks of
    `timezone` changed.
    """

    month: str
    timezone: str
    billing_day: int
    begin: datetime
    end: datetime
    clock_changes: tuple[date, ...]
    bill_timezone: str
    bill_begin: datetime
    bill_end: datetime

    @property
    def hours(self) -> int:
        """The whole hours from begin to end: a day of a change of clocks has 23 or 25."""
        return int((self.end - self.begin).total_seconds()) // 3600

    @property
    def bill_hours(self) -> int:
        """The whole hours of the bill."""
        return int((self.bill_end - self.bill_begin).total_seconds()) // 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sums over requests. `input_tokens` are without the cached, `output_tokens` with reasoning.

    `estimated_tokens` are those of the three that no usage of vLLM has confirmed. `hits` of the
    requests had their answers from the answer cache. No machine worked for their `hit_tokens`,
    which are in none of the other sums.
    """

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_seconds: int = 0
    estimated_tokens: int = 0
    cost_nanos: int = 0
    hits: int = 0
    hit_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.cached_tokens + self.output_tokens + self.hit_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The usage of one user of a tenant, of one model, label and price version.

    With a `reason` its requests were not billed, and it counts nothing else. With `corrects` it
    belongs to that earlier month, whose report was closed before its records came. `base` is the
    model that ran it. `used_nanos` and `idle_nanos` are its shares of the pools' cost: what it
    used, and its part of what nobody used.
    """

    tenant: str
    person: str
    model: str
    base: str
    label: str
    price_version: str
    reason: Reason | None
    corrects: str | None
    usage: Usage
    used_nanos: int = 0
    idle_nanos: int = 0

    @property
    def is_billed(self) -> bool:
        """Whether it is usage of this month that was billed."""
        return self.reason is None and self.corrects is None

    @property
    def shared_nanos(self) -> int:
        """Its share of the pools by allocation: the used and the idle part."""
        return self.used_nanos + self.idle_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMonth:
    """The cost of a pool in the month. `amount` is used + idle + unshared, to the last nano.

    The amount is whole cents. Idle is shared by use; it is unshared if nobody used the pool.
    `quantity` and `rate` are decimal text. `is_idle_known` is False for a pool without a full load.
    """

    name: str
    kind: str
    models: tuple[str, ...]
    quantity: str
    rate: str
    amount_nanos: int
    used_nanos: int
    idle_nanos: int
    unshared_nanos: int
    is_idle_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudList:
    """The prices of a cloud on a day: by model and kind of token, decimal text per million."""

    name: str
    day: date
    prices: Mapping[str, Mapping[str, str]] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthReport:
    """A month. Every figure that is shown follows from this value, and from nothing else.

    `weights` are those of a token of input, cached input and output, in thousandths. `prices` are
    those of each price version, as decimal text by kind. `budgets` are the tenants' limits of cost
    in a month. `without_rows` are closed months whose records were dropped: nothing can be said
    about late ones.
    """

    period: Period
    currency: str
    weights: tuple[int, int, int]
    label: str
    lines: tuple[Line, ...]
    pools: tuple[PoolMonth, ...]
    clouds: tuple[CloudList, ...]
    prices: Mapping[str, Mapping[str, str]] = field(hash=False)
    budgets: Mapping[str, int] = field(hash=False)
    without_rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """When a month was closed, by whom, and the SHA-256 of its document, as hex digits."""

    at: datetime
    by: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A report as it is shown: with the month before it, and with names.

    `closing` is None for an open month, which was read `at`. `before` is None if nothing is known
    of it. `names` are those of people, by id.
    """

    report: MonthReport
    at: datetime
    closing: Closing | None
    before: MonthReport | None
    names: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A row of the report's table: everything about one tenant, user, model or label.

    `name` is that of a user, None for anything else. `before_nanos` is its cost in the month
    before, None if that is not known. `forecast_nanos` is its cost at the end of an open month, at
    the pace so far. `cloud_nanos` is its cost in each list, None for a list that lacks the price of
    a model. `used_nanos` and `idle_nanos` are its shares of the pools; other costs are by price.
    """

    key: str
    name: str | None
    users: int
    usage: Usage
    used_nanos: int
    idle_nanos: int
    before_nanos: int | None
    forecast_nanos: int | None
    budget_nanos: int | None
    cloud_nanos: Mapping[str, int | None] = field(hash=False)
