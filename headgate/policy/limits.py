"""The limits of a tenant as the policy file writes them. See `schema.py`."""

from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from headgate.core.notices import FORECAST, Threshold
from headgate.policy.fields import MAX_COUNT, Amount, Entry, Names, distinct, invalid
from headgate.policy.money import COST_RULE, WEIGHT_RULE, Cost, Weight
from headgate.policy.notices import NOTIFY_RULE, Thresholds
from headgate.policy.problems import PolicyRule

MAX_LEASE_S = 86_400
MAX_SMOOTH = 1_000_000_000
"""Redis' Lua still counts this many exactly in drops, one for each millisecond of an hour."""
SMOOTH_WINDOWS = ("second", "minute", "hour")
FORECAST_WINDOWS = ("hour", "day", "week", "month", "year")
"""Shorter ones are over before anybody has read a forecast."""

_COUNT_RULE = "tokens, requests, cost or concurrent"
_EACH_RULE = "user, key or model, or a list of them"
_USERS_RULE = "a list of users with a key in this tenant"
_MODELS_RULE = "a list of models that this tenant may use"
_SHADOW_RULE = "true for a limit that is counted but never refuses, otherwise false"
_ON_OUTAGE_RULE = "closed, open or share"
_SMOOTH_RULE = (
    f"true for a limit that refills evenly, at most {MAX_SMOOTH} per second, minute or hour;"
    " otherwise false"
)
_BURST_RULE = f"a whole number from 1 to {MAX_SMOOTH}"
_SLICE_RULE = "a whole number from 1 to the limit, in the limit's unit"
_COST_SLICE_RULE = f"{COST_RULE}, no larger than the limit"
_WEIGHTS_RULE = (
    "a mapping with any of the keys input, cached_input, output, at least one of them above 0"
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Dimensions: TypeAlias = Annotated[
    list[Literal["user", "key", "model"]],
    BeforeValidator(_as_list),
    Field(min_length=1),
    AfterValidator(distinct),
]
Outage = Literal["closed", "open", "share"]
Window = Literal["second", "minute", "hour", "day", "week", "month", "year"]


class WeightsEntry(Entry):
    """The weight of a token of each kind."""

    input: Weight = Decimal(1)
    cached_input: Weight | None = Field(default=None, description=WEIGHT_RULE)
    output: Weight = Decimal(1)


def _check_weights(weights: WeightsEntry, limit: ValidationInfo) -> WeightsEntry:
    if limit.data.get("count") == "requests":
        raise invalid(PolicyRule.MISPLACED_KEY, "does not belong here")
    if not (weights.input or weights.cached_input or weights.output):
        raise invalid(PolicyRule.TOO_SMALL, "has no weight above 0")
    return weights


def _check_smooth(is_smooth: bool, limit: ValidationInfo) -> bool:
    per, number = limit.data.get("per", "hour"), limit.data.get("limit", 1)
    if is_smooth and per not in SMOOTH_WINDOWS:
        raise invalid(PolicyRule.NOT_SMOOTH, f"cannot be combined with per: {per}")
    if is_smooth and number > MAX_SMOOTH:
        raise invalid(PolicyRule.NOT_SMOOTH, f"cannot be combined with limit: {number}")
    return is_smooth


def _check_burst(burst: int, limit: ValidationInfo) -> int:
    if limit.data.get("smooth") is False:
        raise invalid(PolicyRule.MISPLACED_KEY, "does not belong here")
    return burst


def _check_notify(notify: list[Threshold], limit: ValidationInfo) -> list[Threshold]:
    if FORECAST not in notify:
        return notify
    per = limit.data.get("per", "hour")
    if limit.data.get("count") == "concurrent":
        raise invalid(PolicyRule.NOT_NOTIFIED, "has forecast, but requests in flight have no end")
    if per not in FORECAST_WINDOWS:
        raise invalid(PolicyRule.NOT_NOTIFIED, f"has forecast, but the limit is per {per}")
    if limit.data.get("smooth") is True:
        raise invalid(PolicyRule.NOT_NOTIFIED, "has forecast, but the limit is smooth")
    return notify


Notify = Annotated[Thresholds, AfterValidator(_check_notify)]


class WindowLimitEntry(Entry):
    """A limit of tokens or requests, in calendar windows or smooth."""

    count: Literal["tokens", "requests"] = Field(description=_COUNT_RULE)
    limit: Amount
    per: Window = Field(description="second, minute, hour, day, week, month or year")
    each: Dimensions = Field(default=[], description=_EACH_RULE)
    users: Names = Field(default=[], description=_USERS_RULE)
    models: Names = Field(default=[], description=_MODELS_RULE)
    shadow: bool = Field(default=False, description=_SHADOW_RULE)
    on_outage: Outage = Field(default="closed", description=_ON_OUTAGE_RULE)
    weights: Annotated[WeightsEntry, AfterValidator(_check_weights)] = Field(
        default=WeightsEntry(), description=_WEIGHTS_RULE
    )
    smooth: Annotated[bool, AfterValidator(_check_smooth)] = Field(
        default=False, description=_SMOOTH_RULE
    )
    burst: Annotated[int, Field(ge=1, le=MAX_SMOOTH), AfterValidator(_check_burst)] | None = Field(
        default=None, description=_BURST_RULE
    )
    slice: int | None = Field(default=None, ge=1, le=MAX_COUNT, description=_SLICE_RULE)
    notify: Notify = Field(default=[], description=NOTIFY_RULE)


class CostLimitEntry(Entry):
    """A limit of cost in calendar windows, by the prices of the models."""

    count: Literal["cost"] = Field(description=_COUNT_RULE)
    limit: Cost
    per: Window = Field(description="second, minute, hour, day, week, month or year")
    each: Dimensions = Field(default=[], description=_EACH_RULE)
    users: Names = Field(default=[], description=_USERS_RULE)
    models: Names = Field(default=[], description=_MODELS_RULE)
    shadow: bool = Field(default=False, description=_SHADOW_RULE)
    on_outage: Outage = Field(default="closed", description=_ON_OUTAGE_RULE)
    slice: Cost | None = Field(default=None, description=_COST_SLICE_RULE)
    notify: Notify = Field(default=[], description=NOTIFY_RULE)


class ConcurrentLimitEntry(Entry):
    """A limit of requests in flight."""

    count: Literal["concurrent"] = Field(description=_COUNT_RULE)
    limit: Amount
    each: Dimensions = Field(default=[], description=_EACH_RULE)
    users: Names = Field(default=[], description=_USERS_RULE)
    models: Names = Field(default=[], description=_MODELS_RULE)
    shadow: bool = Field(default=False, description=_SHADOW_RULE)
    on_outage: Outage = Field(default="closed", description=_ON_OUTAGE_RULE)
    lease_s: int = Field(
        default=900,
        ge=1,
        le=MAX_LEASE_S,
        description=f"a whole number of seconds from 1 to {MAX_LEASE_S}",
    )
    notify: Notify = Field(default=[], description=NOTIFY_RULE)


LimitEntry = Annotated[
    WindowLimitEntry | CostLimitEntry | ConcurrentLimitEntry, Field(discriminator="count")
]
