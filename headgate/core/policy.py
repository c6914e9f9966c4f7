"""The compiled policy as plain values, without I/O. A reload builds new ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct

from headgate.core.adapter_pools import AdapterPool
from headgate.core.answer_cache import ModelCache, TenantCache
from headgate.core.apis import Api
from headgate.core.auto import AUTO, Sizes
from headgate.core.body_fields import FieldRules
from headgate.core.defaults import DEFAULT_FAIRNESS_FLOOR, DEFAULT_IMAGE_TOKENS, DEFAULT_POD_SLOTS
from headgate.core.failover import Failover
from headgate.core.issuers import FrontEnd, Issuer
from headgate.core.notices import Channels, TenantNotices, Threshold
from headgate.core.own_keys import OwnKeyRules
from headgate.core.placement import Affinity
from headgate.core.prices import PriceBook, TokenWeights
from headgate.core.showback import Showback
from headgate.core.versions import Versions
from headgate.core.weekdays import Weekday


class Count(StrEnum):
    """The quantity that a limit counts."""

    TOKENS = "tokens"
    REQUESTS = "requests"
    COST = "cost"
    CONCURRENT = "concurrent"


class Per(StrEnum):
    """The window of a limit, in the tenant's `Calendar`."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


class Calendar(Struct, frozen=True):
    """The calendar of a tenant's windows. Days begin at local midnight, years on 1 January.

    Months begin on their day `billing_day` (1..31), or on their last day if they are shorter.
    """

    timezone: ZoneInfo
    week_start: Weekday = Weekday.MONDAY
    billing_day: int = 1


class Each(StrEnum):
    """A dimension of a limit: each value has a counter of its own."""

    USER = "user"
    KEY = "key"
    MODEL = "model"


class OnOutage(StrEnum):
    """The decision of a limit about requests during an outage of the store."""

    CLOSED = "closed"
    OPEN = "open"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class CountedRequests:
    """A limit of requests: each request adds 1."""

    count: ClassVar[Count] = Count.REQUESTS


@dataclass(frozen=True, slots=True)
class WeightedTokens:
    """A limit of tokens: each token adds the weight of its kind."""

    weights: TokenWeights = field(default_factory=TokenWeights)
    count: ClassVar[Count] = Count.TOKENS


@dataclass(frozen=True, slots=True)
class PricedTokens:
    """A limit of cost in nanos (1e-9 of the currency).

    `books` holds the price book of each model that the limit can meet. It is empty only in the
    scope of a key, whose prices come from the policy in force.
    """

    books: Mapping[str, PriceBook] = field(hash=False)
    count: ClassVar[Count] = Count.COST


Measure: TypeAlias = CountedRequests | WeightedTokens | PricedTokens
"""The rule for the amount that a request adds to a limit's counter."""


@dataclass(frozen=True, slots=True)
class Windowed:
    """A limit with a counter for each calendar window.

    `slice` is the amount that a replica takes from the shared store at a time, to decide by
    itself. With None, the store decides about each request.
    """

    per: Per
    measure: Measure
    slice: int | None = None

    @property
    def count(self) -> Count:
        return self.measure.count


@dataclass(frozen=True, slots=True)
class Smooth:
    """A limit without windows: a bucket of `burst` that refills evenly.

    The limit's number is what refills in each second, minute or hour.
    """

    per: Per
    burst: int
    measure: CountedRequests | WeightedTokens

    @property
    def count(self) -> Count:
        return self.measure.count


@dataclass(frozen=True, slots=True)
class Slots:
    """A limit of requests in flight. A slot is free again at the latest after `lease_s`."""

    lease_s: float = 900.0
    count: ClassVar[Count] = Count.CONCURRENT


Shape: TypeAlias = Windowed | Smooth | Slots
"""The way a limit counts. Code that needs the kind of a limit matches on its shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of a tenant. Without `each`, the whole tenant shares one counter.

    `id` is part of the counter's key. It is made of the limit's meaning, not of its place in the
    file, so that it survives reloads. `limit` is in units of what the shape counts: requests,
    tokens, nanos of the currency, or slots. `users` and `models` narrow a limit to those; empty
    means all. A `shadow` limit is counted and reported but never refuses, not even in an outage
    of the store. `notify` has the thresholds that people are told.
    """

    id: str
    limit: int
    shape: Shape
    each: frozenset[Each] = frozenset()
    users: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    shadow: bool = False
    on_outage: OnOutage = OnOutage.CLOSED
    notify: tuple[Threshold, ...] = ()
    count: Count = field(init=False, repr=False, compare=False)
    capacity: int = field(init=False, repr=False, compare=False)
    """The most that can remain of it: the burst of a smooth limit."""

    def __post_init__(self) -> None:
        shape = self.shape
        object.__setattr__(self, "count", shape.count)
        capacity = shape.burst if isinstance(shape, Smooth) else self.limit
        object.__setattr__(self, "capacity", capacity)


class Caller(Struct, frozen=True, gc=False):
    """The caller that ext_authz found. `key` names a key, an issuer or a workload."""

    tenant: str
    user: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model under the name that clients use.

    `base` is the model entry that runs it: its own name for a base model. `adapter` is the LoRA
    adapter's name on vLLM, if any. `served_as` is the name that vLLM expects in the request body:
    the adapter, or the served model name. `image_tokens` are held for each image of a prompt.

    The virtual time of its queue moves by `fairness_floor` tokens a second at least. The spare
    version of its `failover` answers where another one cannot. Its `answer_cache` is for tenants
    that have one too. Headgate loads the adapters of a base model on the pods of `adapter_pool`.
    A registered adapter is `counted_as` its base. Its `adapter_versions` have their names in vLLM.
    """

    name: str
    base: str
    served_as: str
    upstream: str
    context_tokens: int
    forces_usage: bool
    adapter: str | None = None
    prices: PriceBook = field(default_factory=PriceBook)
    versions: Versions | None = None
    image_tokens: int = DEFAULT_IMAGE_TOKENS
    fairness_floor: int = DEFAULT_FAIRNESS_FLOOR
    pods: tuple[str, ...] = ()
    affinity: Affinity = Affinity.CONVERSATION
    pod_slots: int = DEFAULT_POD_SLOTS
    fields: FieldRules = field(default_factory=dict, hash=False)
    counted_as: str | None = None
    adapter_versions: Versions | None = None
    adapter_pool: AdapterPool | None = None
    answer_cache: ModelCache | None = None
    failover: Failover | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A paying group: the models it may use, the calendar of its windows, and its limits.

    With `cache_salt`, its prompts share vLLM's prefix cache with no other tenant's. With
    `chooses_version`, its clients may choose a version. Its `weight` in vLLM's queues is None if no
    tenant has one. `sizes` are what `auto` may choose for it, if `models` has that name. It
    gets no spare version above its `failover_ceiling`. `notify_keys` are for limits of keys.
    """

    name: str
    calendar: Calendar
    models: frozenset[str]
    limits: tuple[Limit, ...]
    cache_salt: bool = False
    tier: str | None = None
    chooses_version: bool = False
    weight: int | None = None
    fields: FieldRules = field(default_factory=dict, hash=False)
    own_keys: OwnKeyRules | None = None
    sizes: Sizes = ()
    notices: TenantNotices = field(default_factory=TenantNotices)
    answer_cache: TenantCache | None = None
    notify_keys: tuple[Threshold, ...] = ()
    failover_ceiling: TokenWeights | None = None

    @property
    def has_auto(self) -> bool:
        """Whether its callers may name `auto`. A policy without sizes may have such a model."""
        return AUTO in self.models and bool(self.sizes)

    @property
    def usable(self) -> frozenset[str]:
        """The models that may answer it: those that it may name, and those of `auto`."""
        if not self.has_auto:
            return self.models
        return self.models - {AUTO} | {size.model for size in self.sizes}


@dataclass(frozen=True, slots=True)
class PerSecond:
    """The price of audio: this number of tokens for each second that has begun."""

    tokens: int


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One whole compiled policy. It is immutable: a reload swaps the reference to it.

    `keys` maps the SHA-256 digest (32 bytes) of an API key to its caller. `without_usage` holds
    the served APIs of `headgate.core.apis.WITHOUT_USAGE`, each with the charge for a request in
    tokens. None charges the estimate of the prompt, `PerSecond` the length of the audio.
    `cors_origins` are the origins of the web pages that may call, or `*` for all of them.
    `fields` are the rules for the bodies of all requests. Models and tenants may have more.

    `currency` is that of all prices, None if the file does not name it.
    `showback` has the settings of the monthly report, `channels` are the ways of notices.
    `issuers` are by URL, `workloads` by SPIFFE id. `front_ends` are callers that name end users.
    """

    models: Mapping[str, Model]
    tenants: Mapping[str, Tenant]
    keys: Mapping[bytes, Caller]
    without_usage: Mapping[Api, int | PerSecond | None] = field(default_factory=dict)
    cors_origins: frozenset[str] = frozenset()
    fields: FieldRules = field(default_factory=dict)
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    workloads: Mapping[str, Caller] = field(default_factory=dict)
    front_ends: Mapping[Caller, FrontEnd] = field(default_factory=dict)
    currency: str | None = None
    showback: Showback = field(default_factory=Showback)
    channels: Channels = field(default_factory=Channels)
