"""Turns the policy file into the compiled policy that the hooks read."""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import assert_never
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from headgate.core.amounts import NANOS, weights_in_units
from headgate.core.apis import WITHOUT_USAGE, Api
from headgate.core.keys import default_id
from headgate.core.policy import (
    Calendar,
    Caller,
    CompiledPolicy,
    Count,
    Each,
    Limit,
    Model,
    OnOutage,
    Per,
    PerSecond,
    Prices,
    Sticky,
    Tenant,
    TokenWeights,
    Version,
    Versions,
    Weekday,
)
from headgate.policy.limits import (
    ConcurrentLimitEntry,
    CostLimitEntry,
    LimitEntry,
    WeightsEntry,
    WindowLimitEntry,
)
from headgate.policy.schema import (
    AdapterEntry,
    BaseModelEntry,
    PolicyFile,
    PricesEntry,
    TenantEntry,
    WithoutUsageEntry,
)

_PLAIN = TokenWeights()
_PORTS = {"http": 80, "https": 443}


def compile_policy(policy: PolicyFile) -> CompiledPolicy:
    """Compiles a policy file that has passed every check."""
    models: dict[str, Model] = {}
    for name, entry in policy.models.items():
        if isinstance(entry, BaseModelEntry):
            models[name] = _base_model(name, entry)
    for name, entry in policy.models.items():
        if isinstance(entry, AdapterEntry):
            models[name] = _adapter(name, entry, models[entry.base])
    keys = {
        key.sha256: Caller(tenant, key.user, key.id or default_id(key.sha256))
        for tenant, entry in policy.tenants.items()
        for key in entry.keys
    }
    shared: dict[Limit, Limit] = {}
    tenants = {name: _tenant(name, entry, models, shared) for name, entry in policy.tenants.items()}
    ordered = {name: models[name] for name in policy.models}
    return CompiledPolicy(ordered, tenants, keys, _without_usage(policy.without_usage))


def limit_id(
    count: Count,
    per: Per | None,
    each: frozenset[Each],
    users: frozenset[str],
    models: frozenset[str],
    shadow: bool = False,
    weights: TokenWeights = _PLAIN,
    smooth: bool = False,
) -> str:
    """A name made of what the limit means, such as `tokens.day.user`.

    It is part of the counter's key: changing the number or moving the entry in the file
    keeps the count; changing what is counted begins a new one. A limit that is narrowed
    to users or models ends in 12 hex digits of the digest of their names. A shadow limit
    begins with `shadow`: it counts apart from one in force with the same meaning. Weights stand
    in it as the policy writes them: `tokens.day.weights-1-0.1-4` for input, cached input, output.
    A smooth one says so after its window: `requests.minute.smooth`.
    """
    parts: list[str] = ["shadow", count] if shadow else [count]
    if per is not None:
        parts.append(per)
    if smooth:
        parts.append("smooth")
    parts.extend(sorted(each))
    if (units := weights_in_units(weights)) is not None:
        parts.append("-".join(["weights", *(f"{unit}" for unit in units.values())]))
    if users or models:
        names = json.dumps([sorted(users), sorted(models)])
        parts.append(hashlib.sha256(names.encode()).hexdigest()[:12])
    return ".".join(parts)


def _base_model(name: str, entry: BaseModelEntry) -> Model:
    return Model(
        name=name,
        base=name,
        served_as=entry.served_as or name,
        upstream=_server(entry.upstream),
        context_tokens=entry.context_tokens,
        forces_usage=entry.forces_usage,
        prices=_prices(entry.prices),
        versions=_versions(entry),
    )


def _versions(entry: BaseModelEntry) -> Versions | None:
    """Each version is at the model's own upstream, unless it has another."""
    if entry.versions is None:
        return None
    versions = (
        Version(name, one.weight, _server(one.upstream or entry.upstream))
        for name, one in entry.versions.items()
    )
    return Versions(tuple(versions), Sticky(entry.sticky), entry.sticky_s)


def _adapter(name: str, entry: AdapterEntry, base: Model) -> Model:
    adapter = entry.adapter or name
    return Model(
        name=name,
        base=base.name,
        served_as=adapter,
        upstream=base.upstream,
        context_tokens=base.context_tokens,
        forces_usage=base.forces_usage,
        adapter=adapter,
        prices=base.prices if entry.prices is None else _prices(entry.prices),
        versions=base.versions,
    )


def _server(url: str) -> str:
    """`scheme://host:port` and maybe a path; the port always written, no slash at the end."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or _PORTS[parts.scheme]
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _prices(entry: PricesEntry | None) -> Prices:
    """Cached input costs what input costs, unless it has its own price."""
    if entry is None:
        return Prices(Decimal(0), Decimal(0), Decimal(0))
    cached = entry.input if entry.cached_input is None else entry.cached_input
    return Prices(entry.input, cached, entry.output)


def _tenant(
    name: str, entry: TenantEntry, models: Mapping[str, Model], shared: dict[Limit, Limit]
) -> Tenant:
    """`shared` keeps one of equal limits: thousands of tenants often have the same ones."""
    own = {model: models[model] for model in entry.models}
    compiled = (_limit(limit, own) for limit in entry.limits)
    limits = tuple(shared.setdefault(limit, limit) for limit in compiled)
    week_start = Weekday[entry.week_start.upper()]
    calendar = Calendar(ZoneInfo(entry.timezone), week_start, entry.billing_day)
    return Tenant(
        name,
        calendar,
        frozenset(entry.models),
        limits,
        entry.cache_salt,
        entry.tier,
        entry.chooses_version,
    )


def _without_usage(entry: WithoutUsageEntry) -> dict[Api, int | PerSecond | None]:
    charges = {api: getattr(entry, api) for api in sorted(WITHOUT_USAGE)}
    tokens = {"free": 0, "estimate": None}
    return {
        api: tokens[charge] if isinstance(charge, str) else charge
        for api, charge in charges.items()
        if charge != "refused"
    }


def _weights(entry: WeightsEntry) -> TokenWeights:
    """Cached input weighs what input weighs, unless it has its own weight."""
    cached = entry.input if entry.cached_input is None else entry.cached_input
    return TokenWeights(*(int(weight * 1000) for weight in (entry.input, cached, entry.output)))


def _limit(entry: LimitEntry, models_of_tenant: Mapping[str, Model]) -> Limit:
    count = Count(entry.count)
    each = frozenset(Each(dimension) for dimension in entry.each)
    users, models = frozenset(entry.users), frozenset(entry.models)
    on_outage = OnOutage(entry.on_outage)
    match entry:
        case WindowLimitEntry():
            per, weights = Per(entry.per), _weights(entry.weights)
            identity = limit_id(
                count, per, each, users, models, entry.shadow, weights, entry.smooth
            )
            return Limit(
                identity,
                count,
                entry.limit,
                per,
                each,
                users,
                models,
                shadow=entry.shadow,
                on_outage=on_outage,
                weights=weights,
                burst=(entry.burst or entry.limit) if entry.smooth else None,
                slice=entry.slice,
            )
        case CostLimitEntry():
            per = Per(entry.per)
            return Limit(
                limit_id(count, per, each, users, models, entry.shadow),
                count,
                int(entry.limit * NANOS),
                per,
                each,
                users,
                models,
                shadow=entry.shadow,
                on_outage=on_outage,
                costs={
                    name: model.prices.per_token
                    for name, model in models_of_tenant.items()
                    if not models or name in models
                },
                slice=None if entry.slice is None else int(entry.slice * NANOS),
            )
        case ConcurrentLimitEntry():
            identity = limit_id(count, None, each, users, models, entry.shadow)
            lease_s = float(entry.lease_s)
            return Limit(
                identity,
                count,
                entry.limit,
                None,
                each,
                users,
                models,
                lease_s,
                entry.shadow,
                on_outage,
            )
        case _:
            assert_never(entry)
