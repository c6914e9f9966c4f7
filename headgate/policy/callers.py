"""Compiles the callers of a policy file: keys, front ends, workloads and issuers."""

from pathlib import Path

from headgate.core.issuers import (
    FrontEnd,
    Issuer,
    LoginClient,
    LoginToken,
    Membership,
    Role,
)
from headgate.core.keys import default_id
from headgate.core.own_keys import OwnKeyRules
from headgate.core.policy import Caller
from headgate.policy.identity import ActsForEntry, BrowserLoginEntry, DeviceLoginEntry, IssuerEntry
from headgate.policy.schema import KeyEntry, PolicyFile, TenantEntry


def keys_of(policy: PolicyFile) -> dict[bytes, Caller]:
    """The caller of each key, by the key's digest."""
    return {
        key.sha256: _caller(tenant, key)
        for tenant, entry in policy.tenants.items()
        for key in entry.keys
    }


def front_ends_of(policy: PolicyFile) -> dict[Caller, FrontEnd]:
    """The keys that name their end users."""
    return {
        _caller(tenant, key): _front_end(key.acts_for)
        for tenant, entry in policy.tenants.items()
        for key in entry.keys
        if key.acts_for is not None
    }


def workloads_of(policy: PolicyFile) -> dict[str, Caller]:
    """The caller of each SPIFFE id."""
    return {
        workload.spiffe: Caller(tenant, workload.user, workload.spiffe)
        for tenant, entry in policy.tenants.items()
        for workload in entry.workloads
    }


def own_keys_of(tenant: TenantEntry) -> OwnKeyRules | None:
    """The rules for keys that users make; None if they may make none."""
    entry = tenant.own_keys
    return None if entry is None else OwnKeyRules(entry.most, entry.hours)


def issuers_of(policy: PolicyFile) -> dict[str, Issuer]:
    """The issuers, by their URLs."""
    return {entry.issuer: _issuer(alias, entry) for alias, entry in policy.issuers.items()}


def _caller(tenant: str, key: KeyEntry) -> Caller:
    return Caller(tenant, key.user, key.id or default_id(key.sha256))


def _front_end(entry: ActsForEntry) -> FrontEnd:
    return FrontEnd(
        header=entry.header,
        secret_file=None if entry.secret_file is None else Path(entry.secret_file),
        group_header=entry.group_header,
        tenants=entry.tenants,
        allows_none=entry.missing == "key",
    )


def _issuer(alias: str, entry: IssuerEntry) -> Issuer:
    return Issuer(
        alias=alias,
        url=entry.issuer,
        audiences=frozenset(entry.audience),
        memberships=tuple(
            Membership(each.tenant, Role(each.role), frozenset(each.groups))
            for each in entry.tenants
        ),
        algorithms=tuple(entry.algorithms),
        clock_skew_s=entry.clock_skew_s,
        stale_for_s=entry.stale_for_s,
        user=entry.user,
        display_name=tuple(entry.display_name),
        groups=tuple(entry.groups),
        claims={name: frozenset(values) for name, values in entry.claims.items()},
        browser_login=_login_client(entry.browser_login),
        device_login=_login_client(entry.device_login),
    )


def _login_client(entry: DeviceLoginEntry | None) -> LoginClient | None:
    if entry is None:
        return None
    secret_file = entry.secret_file if isinstance(entry, BrowserLoginEntry) else None
    return LoginClient(
        client_id=entry.client_id,
        scopes=tuple(entry.scopes),
        token=LoginToken(entry.token),
        secret_file=None if secret_file is None else Path(secret_file),
    )
