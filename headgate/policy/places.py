"""The entry, the field and the path in the file that a pydantic error belongs to."""

from typing import Any, TypeAlias

from headgate.policy.adapter_pools import AdapterPoolEntry
from headgate.policy.answer_cache import ModelCacheEntry, TenantCacheEntry
from headgate.policy.auto import CeilingEntry, SizeEntry
from headgate.policy.document import Path, YamlMapping
from headgate.policy.failover import FailoverEntry
from headgate.policy.fields import Entry
from headgate.policy.identity import (
    ActsForEntry,
    BrowserLoginEntry,
    DeviceLoginEntry,
    IssuerEntry,
    MembershipEntry,
    OwnKeysEntry,
    WorkloadEntry,
)
from headgate.policy.limits import (
    ConcurrentLimitEntry,
    CostLimitEntry,
    WeightsEntry,
    WindowLimitEntry,
)
from headgate.policy.notices import (
    MailEntry,
    NoticesEntry,
    SlackEntry,
    TenantNoticesEntry,
    WebhookEntry,
)
from headgate.policy.prices import PricesEntry
from headgate.policy.schema import (
    AdapterEntry,
    BaseModelEntry,
    CorsEntry,
    FairnessEntry,
    KeyEntry,
    PolicyFile,
    TenantEntry,
    WithoutUsageEntry,
)
from headgate.policy.showback import CloudPricesEntry, CostPoolEntry, ShowbackEntry
from headgate.policy.versions import VersionEntry

EntryType: TypeAlias = type[Entry]

_KINDS: dict[str, EntryType] = {
    "base": BaseModelEntry,
    "adapter": AdapterEntry,
    "tokens": WindowLimitEntry,
    "requests": WindowLimitEntry,
    "cost": CostLimitEntry,
    "concurrent": ConcurrentLimitEntry,
}
_LISTED: dict[str, EntryType] = {"keys": KeyEntry, "workloads": WorkloadEntry}
_IN_MODEL: dict[str, EntryType] = {
    "adapter_pool": AdapterPoolEntry,
    "failover": FailoverEntry,
    "answer_cache": ModelCacheEntry,
}
_IN_TENANT: dict[str, EntryType] = {
    "fairness": FairnessEntry,
    "auto_ceiling": CeilingEntry,
    "failover_ceiling": CeilingEntry,
    "own_keys": OwnKeysEntry,
    "notices": TenantNoticesEntry,
    "answer_cache": TenantCacheEntry,
}
_TOP: dict[str, EntryType] = {
    "without_usage": WithoutUsageEntry,
    "cors": CorsEntry,
    "showback": ShowbackEntry,
    "notices": NoticesEntry,
}
_NESTED: dict[tuple[int | str, ...], EntryType] = {
    ("showback", "weights"): WeightsEntry,
    ("notices", "webhook"): WebhookEntry,
    ("notices", "slack"): SlackEntry,
    ("notices", "mail"): MailEntry,
}
_NAMED: dict[str, EntryType] = {"cost_pools": CostPoolEntry, "cloud_prices": CloudPricesEntry}
_LOGINS: dict[str, EntryType] = {
    "browser_login": BrowserLoginEntry,
    "device_login": DeviceLoginEntry,
}


def locate(loc: tuple[int | str, ...], root: YamlMapping) -> tuple[EntryType, str, Path]:
    """The entry type and the field of a pydantic location, and its path in the file.

    Pydantic adds the kind of a model or limit to the location; the file has no such level.
    """
    owner: EntryType = PolicyFile
    depth = 0
    path = list(loc)
    if len(loc) > 2 and loc[0] == "models" and loc[2] in _KINDS:
        del path[2]
        if len(path) > 2:
            owner, depth = _KINDS[str(loc[2])], 2
        if len(path) > 4 and path[2] == "versions" and path[4] != "[key]":
            owner, depth = VersionEntry, 4
        if len(path) > 3 and path[2] in _IN_MODEL:
            owner, depth = _IN_MODEL[str(path[2])], 3
        if "prices" in path[2:]:
            owner, depth = _locate_in_prices(path, root, (owner, depth))
    elif loc[0] == "tenants":
        owner, depth = _locate_in_tenant(loc, path)
    else:
        owner, depth = _locate_elsewhere(loc)
    field = str(path[depth])
    return owner, field, tuple(part for part in path if part != "[key]")


def _locate_in_prices(
    path: list[int | str], root: YamlMapping, outer: tuple[EntryType, int]
) -> tuple[EntryType, int]:
    """Prices without a date are one mapping in the file, and a list of one for pydantic."""
    depth = path.index("prices", 2) + 1
    value: Any = root
    for part in path[:depth]:
        value = value[part]
    if not isinstance(value, list):
        del path[depth : depth + 1]
    else:
        depth += 1
    return (PricesEntry, depth) if len(path) > depth else outer


def _locate_in_tenant(loc: tuple[int | str, ...], path: list[int | str]) -> tuple[EntryType, int]:
    if len(loc) > 5 and loc[2] == "limits":
        del path[4]
        is_weight = len(path) > 5 and path[4] == "weights"
        return (WeightsEntry, 5) if is_weight else (_KINDS[str(loc[4])], 4)
    if len(loc) > 5 and loc[2] == "keys" and loc[4] == "acts_for":
        return ActsForEntry, 5
    if len(loc) > 3 and loc[2] in _IN_TENANT:
        return _IN_TENANT[str(loc[2])], 3
    if len(loc) > 4 and loc[2] in _LISTED:
        return _LISTED[str(loc[2])], 4
    return (TenantEntry, 2) if len(loc) > 2 and loc[2] != "[key]" else (PolicyFile, 0)


def _locate_named(loc: tuple[int | str, ...]) -> tuple[EntryType, int]:
    """In a cost pool or a list of cloud prices."""
    is_price = loc[2] == "models" and len(loc) > 4 and loc[4] != "[key]"
    return (PricesEntry, 4) if is_price and loc[0] == "cloud_prices" else (_NAMED[str(loc[0])], 2)


def _locate_in_issuer(loc: tuple[int | str, ...]) -> tuple[EntryType, int]:
    if len(loc) > 3 and loc[2] in _LOGINS:
        return _LOGINS[str(loc[2])], 3
    return (MembershipEntry, 4) if len(loc) > 4 and loc[2] == "tenants" else (IssuerEntry, 2)


def _locate_elsewhere(loc: tuple[int | str, ...]) -> tuple[EntryType, int]:
    if len(loc) > 2 and loc[0] in _NAMED and loc[2] != "[key]":
        return _locate_named(loc)
    if loc[:2] in _NESTED and len(loc) > 2:
        return _NESTED[loc[:2]], 2
    if len(loc) > 1 and loc[0] in _TOP:
        return _TOP[str(loc[0])], 1
    if len(loc) > 2 and loc[0] == "auto":
        return SizeEntry, 2
    if len(loc) > 2 and loc[0] == "issuers" and loc[2] != "[key]":
        return _locate_in_issuer(loc)
    return PolicyFile, 0
