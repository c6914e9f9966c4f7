"""The schema of the policy file. `compile.py` compiles it to the policy that the hooks read.

A field's description is what an operator reads after "allowed:" when the value is wrong.
`references.py` checks how entries refer to each other.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
)

from headgate.core.defaults import (
    DEFAULT_FAIRNESS_FLOOR,
    DEFAULT_IMAGE_TOKENS,
    DEFAULT_POD_SLOTS,
)
from headgate.core.keys import SECRET_PREFIX
from headgate.core.policy import PerSecond
from headgate.policy.adapter_pools import AdapterPoolEntry
from headgate.policy.answer_cache import CacheOfModel, CacheOfTenant
from headgate.policy.auto import AUTO_RULE, CEILING_RULE, CeilingEntry, SizeEntry
from headgate.policy.body_fields import FIELDS_RULE, BodyFields
from headgate.policy.failover import FAILOVER_RULE, FailoverEntry
from headgate.policy.fields import (
    NAME_RULE,
    SERVED_NAME_RULE,
    Entry,
    ModelName,
    Name,
    Names,
    ServedName,
    distinct,
    invalid,
)
from headgate.policy.identity import ActsForEntry, IssuerEntry, OwnKeysEntry, WorkloadEntry
from headgate.policy.limits import LimitEntry
from headgate.policy.notices import CHANNELS_RULE, NoticesEntry, NoticesOfTenant, Thresholds
from headgate.policy.origins import ORIGIN_RULE, Origin, alone_if_any
from headgate.policy.pods import (
    AFFINITY_RULE,
    MAX_POD_SLOTS,
    POD_SLOTS_RULE,
    PODS_RULE,
    AffinityWord,
    Pods,
)
from headgate.policy.prices import CURRENCY_RULE, PRICES_RULE, Currency, PriceList
from headgate.policy.problems import PolicyRule, shown
from headgate.policy.showback import POOL_RULE, CloudLists, CostPools, ShowbackEntry
from headgate.policy.timezones import TIMEZONE_RULE, Timezone
from headgate.policy.urls import UPSTREAM_RULE, Upstream
from headgate.policy.versions import StickyWord, Versions

MAX_CONTEXT_TOKENS = 100_000_000
MAX_IMAGE_TOKENS = 1_000_000
MAX_WEIGHT = 100
MAX_FAIRNESS_FLOOR = 1_000_000

BASE_RULE = "the name of a model in this file that has an upstream"

_CACHE_SALT_RULE = "true to share vLLM's prefix cache with no other tenant, otherwise false"
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
    """The 32 bytes of the hex digits. Any other value may be a secret, so it is not shown."""
    if value is None:
        return value
    if isinstance(value, str) and value.lower().startswith(SECRET_PREFIX):
        fault = "is an API key, not its digest (value not shown): make a new key"
        raise invalid(PolicyRule.SECRET, fault)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        size = f"{len(value)} characters, " if isinstance(value, str) else ""
        raise invalid(PolicyRule.BAD_DIGEST, f"is not a SHA-256 digest ({size}value not shown)")
    return bytes.fromhex(value)


def _charge(value: object) -> object:
    """Not a union, for which pydantic would report an error for each member."""
    if value is None or value in ("refused", "free", "estimate"):
        return value
    if type(value) is int and 1 <= value <= MAX_CONTEXT_TOKENS:
        return value
    raise invalid(
        PolicyRule.NOT_ONE_OF,
        f"is neither a known word nor a number of tokens (value {shown(value)})",
    )


Charge = Annotated[Literal["refused", "free", "estimate"] | int, BeforeValidator(_charge)]


def _audio_charge(value: object) -> object:
    """A charge as in `_charge`, or a price per second of audio."""
    if isinstance(value, Mapping):
        tokens = value.get("tokens_per_second")
        if len(value) == 1 and type(tokens) is int and 1 <= tokens <= MAX_TOKENS_PER_SECOND:
            return PerSecond(tokens)
        raise invalid(PolicyRule.NOT_ONE_OF, f"is not a price per second (value {shown(value)})")
    return _charge(value)


AudioCharge = Annotated[
    Literal["refused", "free", "estimate"] | int | PerSecond, BeforeValidator(_audio_charge)
]
DayOfWeek = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class BaseModelEntry(Entry):
    """A model that a vLLM server runs."""

    upstream: Upstream = Field(description=UPSTREAM_RULE)
    context_tokens: int = Field(
        ge=1,
        le=MAX_CONTEXT_TOKENS,
        description=f"a whole number from 1 to {MAX_CONTEXT_TOKENS} (vLLM's --max-model-len)",
    )
    served_as: ServedName | None = Field(default=None, description=SERVED_NAME_RULE)
    forces_usage: bool = Field(
        default=False,
        description="true if vLLM runs with --enable-force-include-usage, otherwise false",
    )
    image_tokens: int = Field(
        default=DEFAULT_IMAGE_TOKENS,
        ge=0,
        le=MAX_IMAGE_TOKENS,
        description=f"a whole number of tokens from 0 to {MAX_IMAGE_TOKENS}",
    )
    fairness_floor: int = Field(
        default=DEFAULT_FAIRNESS_FLOOR,
        ge=0,
        le=MAX_FAIRNESS_FLOOR,
        description=f"a whole number of tokens a second, from 0 to {MAX_FAIRNESS_FLOOR}",
    )
    pods: Pods | None = Field(default=None, description=PODS_RULE)
    affinity: AffinityWord = Field(default="conversation", description=AFFINITY_RULE)
    pod_slots: int = Field(
        default=DEFAULT_POD_SLOTS, ge=1, le=MAX_POD_SLOTS, description=POD_SLOTS_RULE
    )
    prices: PriceList | None = Field(default=None, description=PRICES_RULE)
    versions: Versions | None = Field(
        default=None,
        description="versions by name, each {weight: ..., upstream: ...}; weights add up to 100",
    )
    sticky: StickyWord = Field(default="conversation", description="conversation, user or tenant")
    sticky_s: int = Field(
        default=3600, ge=1, le=2_592_000, description="a whole number of seconds, up to 30 days"
    )
    failover: FailoverEntry | None = Field(default=None, description=FAILOVER_RULE)
    adapter_pool: AdapterPoolEntry | None = Field(
        default=None, description="a mapping with pods, live, listed, max_rank and trained_on"
    )
    fields: BodyFields = Field(default={}, description=FIELDS_RULE)
    answer_cache: CacheOfModel = None


class AdapterEntry(Entry):
    """A LoRA adapter on a base model of the file, from which it inherits the rest."""

    base: str = Field(description=BASE_RULE)
    adapter: ServedName | None = Field(default=None, description=SERVED_NAME_RULE)
    prices: PriceList | None = Field(default=None, description=PRICES_RULE)
    fields: BodyFields = Field(default={}, description=FIELDS_RULE)


def model_kind(value: Any) -> str:
    """The kind of model entry that the author meant: `base` or `adapter`."""
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
    acts_for: ActsForEntry | None = Field(
        default=None, description="a mapping with the key header, for a trusted front end"
    )


class FairnessEntry(Entry):
    """The part of a busy vLLM that a tenant gets, beside those of the other tenants."""

    weight: int = Field(ge=1, le=MAX_WEIGHT, description=f"a whole number from 1 to {MAX_WEIGHT}")


class TenantEntry(Entry):
    """A paying group."""

    models: Names = Field(description="a list of at least one model in this file")
    timezone: Timezone = Field(default="UTC", description=TIMEZONE_RULE)
    week_start: DayOfWeek = Field(
        default="monday",
        description="monday, tuesday, wednesday, thursday, friday, saturday or sunday",
    )
    billing_day: int = Field(default=1, ge=1, le=31, description="a day of the month, from 1 to 31")
    keys: list[KeyEntry] = Field(
        default=[], description="a list of keys, each {id: ..., user: ..., sha256: ...}"
    )
    workloads: list[WorkloadEntry] = Field(
        default=[], description="a list of workloads, each {user: ..., spiffe: ...}"
    )
    limits: list[LimitEntry] = Field(
        default=[], description="a list of limits, each {count: ..., limit: ..., per: ...}"
    )
    cache_salt: bool = Field(default=False, description=_CACHE_SALT_RULE)
    tier: Name | None = Field(default=None, description=NAME_RULE)
    chooses_version: bool = Field(
        default=False,
        description="true if its clients may choose a version by x-model-version, otherwise false",
    )
    fairness: FairnessEntry | None = Field(
        default=None, description="a mapping with the key weight"
    )
    fields: BodyFields = Field(default={}, description=FIELDS_RULE)
    auto_ceiling: CeilingEntry | None = Field(default=None, description=CEILING_RULE)
    failover_ceiling: CeilingEntry | None = Field(default=None, description=CEILING_RULE)
    own_keys: OwnKeysEntry | None = Field(
        default=None, description="{most: ..., hours: ...}, for users who make their own keys"
    )
    notices: NoticesOfTenant = None
    notify_keys: Thresholds = Field(default=[])
    answer_cache: CacheOfTenant = None


class WithoutUsageEntry(Entry):
    """The charge for a request to each API whose answers do not report their usage."""

    count_tokens: Charge = Field(default="refused", description=_CHARGE_RULE)
    tokenize: Charge = Field(default="refused", description=_CHARGE_RULE)
    transcriptions: AudioCharge = Field(default="refused", description=_AUDIO_CHARGE_RULE)
    translations: AudioCharge = Field(default="refused", description=_AUDIO_CHARGE_RULE)


class CorsEntry(Entry):
    """The web pages whose scripts may call Headgate from a browser."""

    origins: Annotated[
        list[Origin], Field(min_length=1), AfterValidator(distinct), AfterValidator(alone_if_any)
    ] = Field(description=ORIGIN_RULE)


class PolicyFile(Entry):
    """The whole file."""

    models: dict[ModelName, ModelEntry] = Field(
        min_length=1,
        description="models by name, each with upstream and context_tokens, or with base",
    )
    tenants: dict[Name, TenantEntry] = Field(
        min_length=1, description="tenants by name, each with at least models"
    )
    auto: dict[str, SizeEntry] = Field(default={}, min_length=1, description=AUTO_RULE)
    currency: Currency | None = Field(default=None, description=CURRENCY_RULE)
    issuers: dict[Name, IssuerEntry] = Field(
        default={}, description="issuers by name, each with issuer, audience and tenants"
    )
    without_usage: WithoutUsageEntry = Field(
        default=WithoutUsageEntry(),
        description="a mapping with the keys count_tokens, tokenize, transcriptions, translations",
    )
    cors: CorsEntry | None = Field(default=None, description="a mapping with the key origins")
    showback: ShowbackEntry = Field(
        default=ShowbackEntry(),
        description="a mapping with the keys timezone, billing_day, bill_timezone, label, weights",
    )
    cost_pools: CostPools = Field(default={}, description=f"pools by name, each {POOL_RULE}")
    cloud_prices: CloudLists = Field(
        default={}, description="price lists by name, each with day and models"
    )
    notices: NoticesEntry = Field(default=NoticesEntry(), description=CHANNELS_RULE)
    fields: BodyFields = Field(default={}, description=FIELDS_RULE)
