"""The groups of a token, and the tenants to which they lead."""

from collections.abc import Mapping

from headgate.core.issuers import ClaimPath, Issuer, Role
from headgate.identity.tokens.errors import Reason, TokenError, shown
from headgate.identity.tokens.form import Members

_ROLES = list(Role)


def memberships(claims: Members, issuer: Issuer) -> Mapping[str, Role]:
    """The highest role in each tenant of the person. Raises TokenError if there is no tenant."""
    groups = _groups(claims, issuer)
    tenants: dict[str, Role] = {}
    for entry in issuer.memberships:
        if not entry.groups or entry.groups & groups:
            other = tenants.get(entry.tenant, entry.role)
            tenants[entry.tenant] = max(entry.role, other, key=_ROLES.index)
    if not tenants:
        path = ".".join(issuer.groups)
        message = (
            f"None of your groups (the token's `{path}`) is in `issuers.{issuer.alias}.tenants`."
        )
        raise TokenError(Reason.NO_TENANT, message)
    return tenants


def value_at(claims: Members, path: ClaimPath) -> object:
    """The value of a claim; None if there is none."""
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _groups(claims: Members, issuer: Issuer) -> frozenset[str]:
    value = value_at(claims, issuer.groups)
    if value is None:
        _check_overage(claims, issuer)
        return frozenset()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(group, str) for group in listed):
        message = f"The token's `{'.'.join(issuer.groups)}` is {shown(value)}, not a list of texts."
        raise TokenError(Reason.CLAIM, message)
    return frozenset(listed)


def _check_overage(claims: Members, issuer: Issuer) -> None:
    """Entra ID names no group at all if there are more than 200 (6 in some flows).

    Nobody may lose a tenant, or get another, because a group was added elsewhere.
    """
    sources = claims.get("_claim_names")
    left_out = isinstance(sources, dict) and issuer.groups[0] in sources
    if left_out or claims.get("hasgroups") is True:
        message = (
            "Your token leaves out your groups, as there are too many. In the app registration of"
            ' Entra ID choose "Groups assigned to the application", or use app roles and set'
            f" `issuers.{issuer.alias}.groups: roles`."
        )
        raise TokenError(Reason.GROUPS_LEFT_OUT, message)
