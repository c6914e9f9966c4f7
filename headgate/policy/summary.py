"""The summary of a policy for the command line, and the YAML of a new key."""

import json
from collections import Counter

from headgate.core.amounts import money, weights_of
from headgate.core.issuers import FrontEnd, Issuer
from headgate.core.keys import ApiKey
from headgate.core.policy import (
    Calendar,
    Caller,
    CompiledPolicy,
    Count,
    Limit,
    Model,
    OnOutage,
    PerSecond,
    PricedTokens,
    Shape,
    Slots,
    Smooth,
    Tenant,
    Windowed,
)
from headgate.core.weekdays import Weekday
from headgate.policy.document import scalar

_SHOWN_NAMES = 5


def describe(policy: CompiledPolicy) -> str:
    """A short summary: the totals, then a line for each model, tenant and limit."""
    keys = Counter(caller.tenant for caller in policy.keys.values())
    limits = sum(len(tenant.limits) for tenant in policy.tenants.values())
    counts = [
        _counted(len(policy.models), "model"),
        _counted(len(policy.tenants), "tenant"),
        _counted(len(policy.keys), "key"),
        _counted(limits, "limit"),
    ]
    lines = [", ".join(counts)]
    lines += [_model_line(model) for model in policy.models.values()]
    for tenant in policy.tenants.values():
        lines.append(_tenant_line(tenant, keys[tenant.name]))
        lines += [f"  {_limit_line(limit)}" for limit in tenant.limits]
    lines += [f"{api}: {_price(price)}" for api, price in policy.without_usage.items()]
    lines += [_issuer_line(issuer) for issuer in policy.issuers.values()]
    lines += [_front_end_line(*entry) for entry in policy.front_ends.items()]
    lines += [f"workload {name}: {at.user} of {at.tenant}" for name, at in policy.workloads.items()]
    if policy.cors_origins:
        lines.append(f"web pages of {_names(policy.cors_origins)}")
    return "\n".join(lines)


def _issuer_line(issuer: Issuer) -> str:
    tenants = _names(frozenset(entry.tenant for entry in issuer.memberships))
    stale = f"its keys count for {issuer.stale_for_s} s without it"
    return f"issuer {issuer.alias}: {issuer.url}; tenants {tenants}; {stale}"


def _front_end_line(caller: Caller, front_end: FrontEnd) -> str:
    signed = "signed " if front_end.secret_file else ""
    missing = f"is {caller.user}" if front_end.allows_none else "is refused"
    return (
        f"front end {caller.user} of {caller.tenant}: names its users in {signed}"
        f"{front_end.header}; a request without it {missing}"
    )


def _price(price: int | PerSecond | None) -> str:
    if isinstance(price, PerSecond):
        return f"{_counted(price.tokens, 'token')} for each second of audio"
    cost = "its prompt's estimate" if price is None else _counted(price, "token")
    return f"{cost} for each request"


def key_yaml(tenant: str, user: str, key: ApiKey) -> str:
    """The entry of a new key, indented as in the file below `tenants.TENANT.keys:`."""
    fields = {"id": key.id, "user": user, "sha256": key.digest.hex()}
    entry = ", ".join(f"{name}: {_yaml_text(value)}" for name, value in fields.items())
    return f"# below tenants: {tenant}: keys:\n      - {{{entry}}}\n"


def _yaml_text(value: str) -> str:
    """The text as YAML: bare if YAML reads it as this text, otherwise in quotes."""
    is_bare = value.replace("-", "").replace(".", "").isalnum() and scalar(value) == value
    return value if is_bare and value[0].isalnum() else json.dumps(value)


def _model_line(model: Model) -> str:
    if model.adapter is not None:
        return f"model {model.name}: adapter {model.adapter} on {model.base}"
    return (
        f"model {model.name}: {model.served_as} at {model.upstream},"
        f" {model.context_tokens} tokens of context"
    )


def _tenant_line(tenant: Tenant, keys: int) -> str:
    models = ", ".join(sorted(tenant.models))
    calendar = _calendar_text(tenant.calendar)
    line = f"tenant {tenant.name} ({calendar}): {_counted(keys, 'key')}; {models}"
    return f"{line}; a prefix cache of its own" if tenant.cache_salt else line


def _calendar_text(calendar: Calendar) -> str:
    """The timezone; and the first day of weeks and months, unless it is Monday or the first."""
    text = calendar.timezone.key
    if calendar.week_start is not Weekday.MONDAY:
        text += f", weeks from {calendar.week_start.name.capitalize()}"
    if calendar.billing_day != 1:
        text += f", months from day {calendar.billing_day}"
    return text


def limit_text(limit: Limit) -> str:
    """A limit in words: `100 requests per minute for each user`."""
    text = _rate(limit)
    if limit.each:
        text += " for each " + " and ".join(sorted(limit.each))
    if limit.users:
        text += ", users " + _names(limit.users)
    if limit.models:
        text += ", models " + _names(limit.models)
    text += _weights(limit.shape)
    if limit.on_outage is not OnOutage.CLOSED and not limit.shadow:
        text += f", {limit.on_outage} in an outage of the store"
    match limit.shape:
        case Windowed(slice=int(size)):
            text += f", in slices of {_number(limit.count, size)}"
    return text


def _rate(limit: Limit) -> str:
    match limit.shape:
        case Slots():
            return f"{limit.limit} requests in flight"
        case Windowed(per=per, measure=PricedTokens()):
            return f"{_number(limit.count, limit.limit)} of cost per {per}"
        case Windowed(per=per):
            return f"{limit.limit} {limit.count} per {per}"
        case Smooth(per=per, burst=burst):
            return f"{limit.limit} {limit.count} per {per} in bursts of up to {burst}"


def _weights(shape: Shape) -> str:
    weights = None if isinstance(shape, Slots) else weights_of(shape.measure)
    if weights is None:
        return ""
    return ", weights " + ", ".join(f"{kind} {weight}" for kind, weight in weights.items())


def _number(count: Count, number: int) -> str:
    return f"{money(number):f}" if count is Count.COST else str(number)


def _limit_line(limit: Limit) -> str:
    text = limit_text(limit)
    return f"{text}; shadow: refuses nobody, in metrics {limit.id}" if limit.shadow else text


def _names(names: frozenset[str]) -> str:
    listed = sorted(names)[:_SHOWN_NAMES]
    more = len(names) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
