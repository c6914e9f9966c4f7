"""The policy file as it is written. `compile.py` turns it into what the hooks read.

A field's description is the sentence that an operator reads as "what is allowed"
when its value is wrong. How entries refer to each other is checked in `references.py`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
)

from headgate.core.keys import SECRET_PREFIX
from headgate.core.policy import PerSecond
from headgate.policy.fields import (
    NAME_RULE,
    SERVED_NAME_RULE,
    Entry,
    ModelName,
    Name,
    Names,
    ServedName,
    wrong,
)
from headgate.policy.limits import LimitEntry
from headgate.policy.money import PRICE_RULE, Price
from headgate.policy.problems import Rule, hint, shown
from headgate.policy.urls import UPSTREAM_RULE, Upstream
from headgate.policy.versions import StickyWord, Versions

MAX_CONTEXT_TOKENS = 100_000_000

_CACHE_SALT_RULE = (
    "true where prompts of this tenant share vLLM's prefix cache with no other's, else false"
)
_CHARGE_RULE = (
    f"refused, free, estimate, or a whole number of tokens from 1 to {MAX_CONTEXT_TOKENS}"
)
MAX_TOKENS_PER_SECOND = 100_000
_AUDIO_CHARGE_RULE = (
    f"refused, free, estimate, a whole number of tokens from 1 to {MAX_CONTEXT_TOKENS}, or"
    f" {{tokens_per_second: 1 to {MAX_TOKENS_PER_SECOND}}}"
)

_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


def _digest(value: object) -> object:
    """The 32 bytes behind the hex digits. A value that is none may be a secret: not shown."""
    if value is None:
        return value
    if isinstance(value, str) and value.lower().startswith(SECRET_PREFIX):
        what = "is an API key itself, not its digest (value not shown): make a new key"
        raise wrong(Rule.SECRET, what)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        size = f"{len(value)} characters, " if isinstance(value, str) else ""
        raise wrong(Rule.BAD_DIGEST, f"is not a SHA-256 digest ({size}value not shown)")
    return bytes.fromhex(value)


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        close = hint(name, sorted(available_timezones()))
        raise wrong(Rule.BAD_TIMEZONE, f"is not a timezone (value {shown(name)}){close}") from None
    return name


def _charge(value: object) -> object:
    """Not a union: pydantic would tell of each of its parts."""
    if value is None or value in ("refused", "free", "estimate"):
        return value
    if type(value) is int and 1 <= value <= MAX_CONTEXT_TOKENS:
        return value
    raise wrong(Rule.NOT_ONE_OF, f"is not a known word or number of tokens (value {shown(value)})")


Charge = Annotated[Literal["refused", "free", "estimate"] | int, BeforeValidator(_charge)]


def _audio_charge(value: object) -> object:
    """As `_charge`, or a price for each second."""
    if isinstance(value, Mapping):
        tokens = value.get("tokens_per_second")
        if len(value) == 1 and type(tokens) is int and 1 <= tokens <= MAX_TOKENS_PER_SECOND:
            return PerSecond(tokens)
        raise wrong(Rule.NOT_ONE_OF, f"is not a price of seconds (value {shown(value)})")
    return _charge(value)


AudioCharge = Annotated[
    Literal["refused", "free", "estimate"] | int | PerSecond, BeforeValidator(_audio_charge)
]
DayOfWeek = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class PricesEntry(Entry):
    """Prices of a model per million tokens, all of one policy in the same currency."""

    input: Price
    output: Price
    cached_input: Price | None = Field(default=None, description=PRICE_RULE)


class BaseModelEntry(Entry):
    """A model that a vLLM serves."""

    upstream: Upstream = Field(description=UPSTREAM_RULE)
    context_tokens: int = Field(
        ge=1,
        le=MAX_CONTEXT_TOKENS,
        description=f"a whole number from 1 to {MAX_CONTEXT_TOKENS} (vLLM's --max-model-len)",
    )
    served_as: ServedName | None = Field(default=None, description=SERVED_NAME_RULE)
    forces_usage: bool = Field(
        default=False,
        description="true where vLLM runs with --enable-force-include-usage, else false",
    )
    prices: PricesEntry | None = Field(
        default=None, description="a mapping with the keys input, output, cached_input"
    )
    versions: Versions | None = Field(
        default=None,
        description="versions by their name, each {weight: ..., upstream: ...}, 100 together",
    )
    sticky: StickyWord = Field(default="conversation", description="conversation, user or tenant")
    sticky_s: int = Field(
        default=3600, ge=1, le=2_592_000, description="a whole number of seconds, up to 30 days"
    )


class AdapterEntry(Entry):
    """A LoRA adapter on one of the models above; the rest it takes from there."""

    base: str = Field(description="the name of a model in this file that has an upstream")
    adapter: ServedName | None = Field(default=None, description=SERVED_NAME_RULE)
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
    tier: Name | None = Field(default=None, description=NAME_RULE)
    chooses_version: bool = Field(
        default=False,
        description="true where its clients may choose a version by x-model-version, else false",
    )


class WithoutUsageEntry(Entry):
    """What one request costs of an API whose answers do not say what they used."""

    count_tokens: Charge = Field(default="refused", description=_CHARGE_RULE)
    tokenize: Charge = Field(default="refused", description=_CHARGE_RULE)
    transcriptions: AudioCharge = Field(default="refused", description=_AUDIO_CHARGE_RULE)
    translations: AudioCharge = Field(default="refused", description=_AUDIO_CHARGE_RULE)


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
        description="a mapping with the keys count_tokens, tokenize, transcriptions, translations",
    )
