"""Compiles the policy file to the policy that the hooks read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from headgate.core.amounts import NANOS
from headgate.core.apis import WITHOUT_USAGE, Api
from headgate.core.auto import Sizes
from headgate.core.body_fields import FieldRules, strictest
from headgate.core.placement import Affinity
from headgate.core.policy import (
    Calendar,
    CompiledPolicy,
    CountedRequests,
    Each,
    Limit,
    Model,
    OnOutage,
    Per,
    PerSecond,
    PricedTokens,
    Shape,
    Slots,
    Smooth,
    Tenant,
    WeightedTokens,
    Windowed,
)
from headgate.core.prices import TokenWeights
from headgate.core.versions import Sticky, Version, Versions
from headgate.core.weekdays import Weekday
from headgate.policy.adapter_pools import pool_of
from headgate.policy.answer_cache import model_cache_of, tenant_cache_of
from headgate.policy.auto import below, sizes_of
from headgate.policy.callers import (
    front_ends_of,
    issuers_of,
    keys_of,
    own_keys_of,
    workloads_of,
)
from headgate.policy.failover import ceiling_of, failover_of
from headgate.policy.limits import (
    ConcurrentLimitEntry,
    CostLimitEntry,
    LimitEntry,
    WindowLimitEntry,
)
from headgate.policy.meaning import meaning_of
from headgate.policy.notices import channels_of, tenant_notices_of
from headgate.policy.prices import price_book
from headgate.policy.schema import (
    AdapterEntry,
    BaseModelEntry,
    PolicyFile,
    TenantEntry,
    WithoutUsageEntry,
)
from headgate.policy.showback import showback_of

_OTHERS_WEIGHT = 1
_PORTS = {"http": 80, "https": 443}


def compile_policy(policy: PolicyFile) -> CompiledPolicy:
    """Compiles a policy file that has passed every check."""
    models: dict[str, Model] = {}
    for name, entry in policy.models.items():
        if isinstance(entry, BaseModelEntry):
            models[name] = _base_model(name, entry, policy.currency)
    for name, entry in policy.models.items():
        if isinstance(entry, AdapterEntry):
            models[name] = _adapter(name, entry, models[entry.base], policy.currency)
    sizes = sizes_of(policy.auto, models)
    shared: dict[Limit, Limit] = {}
    is_fair = any(entry.fairness is not None for entry in policy.tenants.values())
    tenants = {
        name: replace(_tenant(name, entry, models, sizes, shared), weight=_weight(entry, is_fair))
        for name, entry in policy.tenants.items()
    }
    ordered = {name: models[name] for name in policy.models}
    return CompiledPolicy(
        models=ordered,
        tenants=tenants,
        keys=keys_of(policy),
        without_usage=_without_usage(policy.without_usage),
        cors_origins=frozenset() if policy.cors is None else frozenset(policy.cors.origins),
        fields=policy.fields,
        issuers=issuers_of(policy),
        workloads=workloads_of(policy),
        front_ends=front_ends_of(policy),
        currency=policy.currency,
        showback=showback_of(policy.showback, policy.cost_pools, policy.cloud_prices),
        channels=channels_of(policy.notices),
    )


def _both(base: FieldRules, adapter: FieldRules) -> FieldRules:
    """The rules of an adapter with those of its base: the stricter one of each field."""
    stricter = {
        name: strictest((base[name], adapter[name])) or base[name]
        for name in base.keys() & adapter.keys()
    }
    return {**base, **adapter, **stricter}


def _base_model(name: str, entry: BaseModelEntry, currency: str | None) -> Model:
    of_versions = {name: one.prices for name, one in (entry.versions or {}).items()}
    return Model(
        name=name,
        base=name,
        served_as=entry.served_as or name,
        upstream=_server(entry.upstream),
        context_tokens=entry.context_tokens,
        forces_usage=entry.forces_usage,
        prices=price_book(entry.prices, of_versions, currency),
        versions=_versions(entry),
        image_tokens=entry.image_tokens,
        fairness_floor=entry.fairness_floor,
        pods=tuple(entry.pods or ()),
        affinity=Affinity(entry.affinity),
        pod_slots=entry.pod_slots,
        fields=entry.fields,
        adapter_pool=pool_of(entry.adapter_pool),
        answer_cache=model_cache_of(entry.answer_cache),
        failover=failover_of(entry.failover),
    )


def _versions(entry: BaseModelEntry) -> Versions | None:
    """The versions of a model. One without an upstream is at the upstream and pods of the model."""
    if entry.versions is None:
        return None
    versions = (
        Version(
            name,
            version.weight,
            _server(version.upstream or entry.upstream),
            tuple(version.pods or (() if version.upstream else entry.pods or ())),
        )
        for name, version in entry.versions.items()
    )
    return Versions(tuple(versions), Sticky(entry.sticky), entry.sticky_s)


def _adapter(name: str, entry: AdapterEntry, base: Model, currency: str | None) -> Model:
    adapter = entry.adapter or name
    return Model(
        name=name,
        base=base.name,
        served_as=adapter,
        upstream=base.upstream,
        context_tokens=base.context_tokens,
        forces_usage=base.forces_usage,
        adapter=adapter,
        prices=price_book(entry.prices, {}, currency, base.prices),
        versions=base.versions,
        image_tokens=base.image_tokens,
        fairness_floor=base.fairness_floor,
        pods=base.pods,
        affinity=base.affinity,
        pod_slots=base.pod_slots,
        failover=base.failover,
        fields=_both(base.fields, entry.fields),
        answer_cache=base.answer_cache,
    )


def _server(url: str) -> str:
    """`scheme://host:port` and maybe a path: always with the port, never with a final slash."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or _PORTS[parts.scheme]
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _tenant(
    name: str,
    entry: TenantEntry,
    models: Mapping[str, Model],
    sizes: Sizes,
    shared: dict[Limit, Limit],
) -> Tenant:
    """`shared` holds one object for equal limits: thousands of tenants often have the same."""
    week_start = Weekday[entry.week_start.upper()]
    calendar = Calendar(ZoneInfo(entry.timezone), week_start, entry.billing_day)
    tenant = Tenant(
        name=name,
        calendar=calendar,
        models=frozenset(entry.models),
        limits=(),
        cache_salt=entry.cache_salt,
        tier=entry.tier,
        chooses_version=entry.chooses_version,
        fields=entry.fields,
        own_keys=own_keys_of(entry),
        notices=tenant_notices_of(entry.notices),
        answer_cache=tenant_cache_of(entry.answer_cache),
        notify_keys=tuple(entry.notify_keys),
        sizes=below(entry.auto_ceiling, sizes, models),
        failover_ceiling=ceiling_of(entry.failover_ceiling),
    )
    own = {model: models[model] for model in tenant.usable}
    compiled = (_limit(limit, own) for limit in entry.limits)
    return replace(tenant, limits=tuple(shared.setdefault(limit, limit) for limit in compiled))


def _weight(entry: TenantEntry, is_fair: bool) -> int | None:
    """The weight in the queues of vLLM. As soon as one tenant has one, all others have 1.

    A request without a priority would go before all that have one.
    """
    if entry.fairness is not None:
        return entry.fairness.weight
    return _OTHERS_WEIGHT if is_fair else None


def _without_usage(entry: WithoutUsageEntry) -> dict[Api, int | PerSecond | None]:
    charges = {api: getattr(entry, api) for api in sorted(WITHOUT_USAGE)}
    tokens = {"free": 0, "estimate": None}
    return {
        api: tokens[charge] if isinstance(charge, str) else charge
        for api, charge in charges.items()
        if charge != "refused"
    }


def _limit(entry: LimitEntry, models_of_tenant: Mapping[str, Model]) -> Limit:
    meaning = meaning_of(entry)
    is_cost = isinstance(entry, CostLimitEntry)
    return Limit(
        id=meaning.id,
        limit=int(entry.limit * NANOS) if is_cost else int(entry.limit),
        shape=_shape(entry, meaning.weights, models_of_tenant),
        each=frozenset(Each(dimension) for dimension in entry.each),
        users=frozenset(entry.users),
        models=frozenset(entry.models),
        shadow=entry.shadow,
        on_outage=OnOutage(entry.on_outage),
        notify=tuple(entry.notify),
    )


def _shape(
    entry: LimitEntry, weights: TokenWeights, models_of_tenant: Mapping[str, Model]
) -> Shape:
    match entry:
        case ConcurrentLimitEntry():
            return Slots(float(entry.lease_s))
        case CostLimitEntry():
            size = None if entry.slice is None else int(entry.slice * NANOS)
            return Windowed(Per(entry.per), _cost(entry, models_of_tenant), size)
        case WindowLimitEntry(smooth=True):
            return Smooth(Per(entry.per), entry.burst or entry.limit, _measure(entry, weights))
        case WindowLimitEntry():
            return Windowed(Per(entry.per), _measure(entry, weights), entry.slice)
        case _:
            assert_never(entry)


def _measure(entry: WindowLimitEntry, weights: TokenWeights) -> CountedRequests | WeightedTokens:
    if entry.count == "requests":
        return CountedRequests()
    return WeightedTokens(weights)


def _cost(entry: CostLimitEntry, models_of_tenant: Mapping[str, Model]) -> PricedTokens:
    met = entry.models or models_of_tenant
    return PricedTokens(
        {name: model.prices for name, model in models_of_tenant.items() if name in met}
    )
