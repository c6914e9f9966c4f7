"""The policy file as it is written. `compile.py` turns it into what the hooks read.

A field's description is the sentence that an operator reads as "what is allowed"
when its value is wrong. How entries refer to each other is checked in `references.py`.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from headgate.policy.money import COST_RULE, PRICE_RULE, WEIGHT_RULE, Cost, Price, Weight
from headgate.policy.problems import Rule, hint, shown
from registry.keys import SECRET_PREFIX

MAX_COUNT = 2**53 - 1
"""The largest whole number that Redis' Lua and JSON carry exactly."""
MAX_CONTEXT_TOKENS = 100_000_000
MAX_LEASE_S = 86_400
MAX_SMOOTH = 1_000_000_000
"""In milliseconds of an hour for each, as they are counted, what Redis' Lua carries exactly."""
SMOOTH_WINDOWS = ("second", "minute", "hour")

NAME_RULE = "1 to 64 letters, digits and . _ @ : + -, a letter or digit first"
MODEL_NAME_RULE = (
    "1 to 128 letters, digits and . _ @ : + -, in parts parted by /, each with a letter"
    " or digit first"
)
UPSTREAM_RULE = (
    "http:// or https://, a host, maybe a port and a path before vLLM's own,"
    " as in http://127.0.0.1:8000"
)
_SERVED_NAME_RULE = "a name that vLLM knows: 1 to 256 letters, digits and . _ @ : + - /, no '..'"
_COUNT_RULE = "tokens, requests, cost or concurrent"
_EACH_RULE = "user, key or model, or a list of them"
_USERS_RULE = "a list of users who have keys in this tenant"
_MODELS_RULE = "a list of models that this tenant may use"
_SHADOW_RULE = "true for a limit that is counted and refuses nobody, else false"
_ON_OUTAGE_RULE = "closed, open or share"
_CACHE_SALT_RULE = (
    "true where prompts of this tenant share vLLM's prefix cache with no other's, else false"
)
_CHARGE_RULE = (
    f"refused, free, estimate, or a whole number of tokens from 1 to {MAX_CONTEXT_TOKENS}"
)
_SMOOTH_RULE = (
    f"true for a limit of at most {MAX_SMOOTH} per second, minute or hour that refills evenly,"
    " else false"
)
_BURST_RULE = f"a whole number from 1 to {MAX_SMOOTH}"
_SLICE_RULE = "a whole number from 1 to the limit, in the limit's unit"
_COST_SLICE_RULE = f"{COST_RULE}, up to the limit"
_WEIGHTS_RULE = "a mapping with some of the keys input, cached_input, output, one of them above 0"

# Names go into HTTP headers, metadata, metric labels and counter keys. As every part
# of a model's name begins with a letter or digit, it cannot hold `..`, which vLLM's
# adapter resolver would follow.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,63}$"
_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]*(/[A-Za-z0-9][A-Za-z0-9._@:+-]*)*$"
_SERVED_NAME = r"^/?[A-Za-z0-9_][A-Za-z0-9._@:+-]*(/[A-Za-z0-9_][A-Za-z0-9._@:+-]*)*$"
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
_HOST_V6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")

T = TypeVar("T")


def _wrong(rule: Rule, what: str) -> PydanticCustomError:
    """An error whose words are final; braces are not placeholders."""
    return PydanticCustomError(rule.value, "{what}", {"what": what})


def _no_secret(name: str) -> str:
    if name.lower().startswith(SECRET_PREFIX):
        raise _wrong(Rule.SECRET, "looks like an API key itself (value not shown)")
    return name


def is_name(text: str) -> bool:
    """Whether a tenant, user or key may be called so."""
    is_secret = text.lower().startswith(SECRET_PREFIX)
    return re.fullmatch(_NAME, text) is not None and not is_secret


def upstream_url(url: str) -> str:
    """The URL as it came; PydanticCustomError says why it is not that of a vLLM."""
    # What stands before an @ or behind a ? may be a password or a token.
    value = "value not shown" if set(url) & set("@?#") else f"value {shown(url)}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong(Rule.BAD_URL, f"is not a URL ({value})") from None
    if "@" in url:
        raise _wrong(Rule.BAD_URL, f"holds credentials ({value})")
    if parts.scheme not in ("http", "https") or not _is_host(parts.hostname) or port == 0:
        raise _wrong(Rule.BAD_URL, f"is not the URL of a server ({value})")
    if "?" in url or "#" in url or not _PATH.fullmatch(parts.path):
        raise _wrong(Rule.BAD_URL, f"holds more than a plain path after its host ({value})")
    if parts.path.rstrip("/").endswith("/v1"):
        # The base URL of an OpenAI client, pasted: the door would ask for /v1/v1/chat/completions.
        raise _wrong(Rule.BAD_URL, f"ends in /v1, which Headgate adds itself ({value})")
    return url


def _is_host(host: str | None) -> bool:
    if host is None:
        return False
    return bool((_HOST_V6 if ":" in host else _HOST).fullmatch(host))


def _digest(value: object) -> object:
    """The 32 bytes behind the hex digits. A value that is none may be a secret: not shown."""
    if value is None:
        return value
    if isinstance(value, str) and value.lower().startswith(SECRET_PREFIX):
        what = "is an API key itself, not its digest (value not shown): make a new key"
        raise _wrong(Rule.SECRET, what)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        size = f"{len(value)} characters, " if isinstance(value, str) else ""
        raise _wrong(Rule.BAD_DIGEST, f"is not a SHA-256 digest ({size}value not shown)")
    return bytes.fromhex(value)


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        close = hint(name, sorted(available_timezones()))
        raise _wrong(Rule.BAD_TIMEZONE, f"is not a timezone (value {shown(name)}){close}") from None
    return name


def _charge(value: object) -> object:
    """Not a union: pydantic would tell of each of its parts."""
    if value is None or value in ("refused", "free", "estimate"):
        return value
    if type(value) is int and 1 <= value <= MAX_CONTEXT_TOKENS:
        return value
    raise _wrong(Rule.NOT_ONE_OF, f"is not a known word or number of tokens (value {shown(value)})")


def _one_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _distinct(values: list[T]) -> list[T]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise _wrong(Rule.TWICE, f"names {shown(value)} twice")
    return values


Name = Annotated[str, Field(pattern=_NAME, description=NAME_RULE), AfterValidator(_no_secret)]
ModelName = Annotated[
    str,
    Field(pattern=_MODEL_NAME, max_length=128, description=MODEL_NAME_RULE),
    AfterValidator(_no_secret),
]
ServedName = Annotated[
    str,
    Field(pattern=_SERVED_NAME, max_length=256, description=_SERVED_NAME_RULE),
    AfterValidator(_no_secret),
]
Names: TypeAlias = Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
Amount = Annotated[
    int, Field(ge=1, le=MAX_COUNT, description=f"a whole number from 1 to {MAX_COUNT}")
]
Dimensions: TypeAlias = Annotated[
    list[Literal["user", "key", "model"]],
    BeforeValidator(_one_as_list),
    Field(min_length=1),
    AfterValidator(_distinct),
]
Charge = Annotated[Literal["refused", "free", "estimate"] | int, BeforeValidator(_charge)]
Outage = Literal["closed", "open", "share"]
Window = Literal["second", "minute", "hour", "day", "week", "month", "year"]
DayOfWeek = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class Entry(BaseModel):
    """What all parts of the file share: unknown keys are refused, and `"5"` is not 5."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PricesEntry(Entry):
    """Prices of a model per million tokens, all of one policy in the same currency."""

    input: Price
    output: Price
    cached_input: Price | None = Field(default=None, description=PRICE_RULE)


class BaseModelEntry(Entry):
    """A model that a vLLM serves."""

    upstream: Annotated[str, AfterValidator(upstream_url)] = Field(description=UPSTREAM_RULE)
    context_tokens: int = Field(
        ge=1,
        le=MAX_CONTEXT_TOKENS,
        description=f"a whole number from 1 to {MAX_CONTEXT_TOKENS} (vLLM's --max-model-len)",
    )
    served_as: ServedName | None = Field(default=None, description=_SERVED_NAME_RULE)
    forces_usage: bool = Field(
        default=False,
        description="true where vLLM runs with --enable-force-include-usage, else false",
    )
    prices: PricesEntry | None = Field(
        default=None, description="a mapping with the keys input, output, cached_input"
    )


class AdapterEntry(Entry):
    """A LoRA adapter on one of the models above; the rest it takes from there."""

    base: str = Field(description="the name of a model in this file that has an upstream")
    adapter: ServedName | None = Field(default=None, description=_SERVED_NAME_RULE)
    prices: PricesEntry | None = Field(
        default=None, description="a mapping with the keys input, output, cached_input"
    )


def model_kind(value: Any) -> str:
    """Which of the two kinds of model entry was meant."""
    is_adapter = isinstance(value, AdapterEntry) or (
        isinstance(value, dict) and ("base" in value or "adapter" in value)
    )
    return "adapter" if is_adapter else "base"


ModelEntry = Annotated[
    Annotated[BaseModelEntry, Tag("base")] | Annotated[AdapterEntry, Tag("adapter")],
    Discriminator(model_kind),
]


class KeyEntry(Entry):
    """An API key, known by its digest only."""

    user: Name
    sha256: Annotated[bytes, BeforeValidator(_digest)] = Field(
        description="the 64 hex digits of the key's SHA-256, as `headgate keys new` prints them"
    )
    id: Name | None = Field(default=None, description=NAME_RULE)


class WeightsEntry(Entry):
    """How often a token of each kind counts."""

    input: Weight = Decimal(1)
    cached_input: Weight | None = Field(default=None, description=WEIGHT_RULE)
    output: Weight = Decimal(1)


def _weighs(weights: WeightsEntry, limit: ValidationInfo) -> WeightsEntry:
    if limit.data.get("count") == "requests":
        raise _wrong(Rule.MISPLACED_KEY, "does not belong here")
    if not (weights.input or weights.cached_input or weights.output):
        raise _wrong(Rule.TOO_SMALL, "counts no token at all")
    return weights


def _can_be_smooth(is_smooth: bool, limit: ValidationInfo) -> bool:
    per, number = limit.data.get("per", "hour"), limit.data.get("limit", 1)
    if is_smooth and per not in SMOOTH_WINDOWS:
        raise _wrong(Rule.NOT_SMOOTH, f"cannot be with a limit per {per}")
    if is_smooth and number > MAX_SMOOTH:
        raise _wrong(Rule.NOT_SMOOTH, f"cannot be with a limit of {number}")
    return is_smooth


def _is_of_smooth(burst: int, limit: ValidationInfo) -> int:
    if limit.data.get("smooth") is False:
        raise _wrong(Rule.MISPLACED_KEY, "does not belong here")
    return burst


class WindowLimitEntry(Entry):
    """A limit of tokens or requests in a calendar window."""

    count: Literal["tokens", "requests"] = Field(description=_COUNT_RULE)
    limit: Amount
    per: Window = Field(description="second, minute, hour, day, week, month or year")
    each: Dimensions = Field(default=[], description=_EACH_RULE)
    users: Names = Field(default=[], description=_USERS_RULE)
    models: Names = Field(default=[], description=_MODELS_RULE)
    shadow: bool = Field(default=False, description=_SHADOW_RULE)
    on_outage: Outage = Field(default="closed", description=_ON_OUTAGE_RULE)
    weights: Annotated[WeightsEntry, AfterValidator(_weighs)] = Field(
        default=WeightsEntry(), description=_WEIGHTS_RULE
    )
    smooth: Annotated[bool, AfterValidator(_can_be_smooth)] = Field(
        default=False, description=_SMOOTH_RULE
    )
    burst: Annotated[int, Field(ge=1, le=MAX_SMOOTH), AfterValidator(_is_of_smooth)] | None = Field(
        default=None, description=_BURST_RULE
    )
    slice: int | None = Field(default=None, ge=1, le=MAX_COUNT, description=_SLICE_RULE)


class CostLimitEntry(Entry):
    """A limit of money in a calendar window, by the prices of the models."""

    count: Literal["cost"] = Field(description=_COUNT_RULE)
    limit: Cost
    per: Window = Field(description="second, minute, hour, day, week, month or year")
    each: Dimensions = Field(default=[], description=_EACH_RULE)
    users: Names = Field(default=[], description=_USERS_RULE)
    models: Names = Field(default=[], description=_MODELS_RULE)
    shadow: bool = Field(default=False, description=_SHADOW_RULE)
    on_outage: Outage = Field(default="closed", description=_ON_OUTAGE_RULE)
    slice: Cost | None = Field(default=None, description=_COST_SLICE_RULE)


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


LimitEntry = Annotated[
    WindowLimitEntry | CostLimitEntry | ConcurrentLimitEntry, Field(discriminator="count")
]


class TenantEntry(Entry):
    """A paying group."""

    models: Names = Field(description="a list of at least one model of this file")
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", description="a name of the IANA timezone database, as in Europe/Berlin"
    )
    week_start: DayOfWeek = Field(
        default="monday",
        description="monday, tuesday, wednesday, thursday, friday, saturday or sunday",
    )
    billing_day: int = Field(
        default=1, ge=1, le=31, description="a day of the month, a whole number from 1 to 31"
    )
    keys: list[KeyEntry] = Field(
        default=[], description="a list of keys, each {id: ..., user: ..., sha256: ...}"
    )
    limits: list[LimitEntry] = Field(
        default=[], description="a list of limits, each {count: ..., limit: ..., per: ...}"
    )
    cache_salt: bool = Field(default=False, description=_CACHE_SALT_RULE)


class WithoutUsageEntry(Entry):
    """What one request costs of an API whose answers do not say what they used."""

    count_tokens: Charge = Field(default="refused", description=_CHARGE_RULE)
    tokenize: Charge = Field(default="refused", description=_CHARGE_RULE)


class PolicyFile(Entry):
    """The whole file."""

    models: dict[ModelName, ModelEntry] = Field(
        min_length=1,
        description="models by their name, each with upstream and context_tokens, or with base",
    )
    tenants: dict[Name, TenantEntry] = Field(
        min_length=1, description="tenants by their name, each with at least models"
    )
    without_usage: WithoutUsageEntry = Field(
        default=WithoutUsageEntry(),
        description="a mapping with the keys count_tokens, tokenize",
    )
