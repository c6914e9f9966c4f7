"""The rights of people in the management of tenants. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.core.issuers import Person, Role

OPERATOR_TOKEN = "~operator-token"  # noqa: S105 - a name
"""The name of whoever shows the operator token. No key and no issuer can give it to a person."""

_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Manager:
    """Somebody who calls the management API. `name` is their name as a user, and in the change log.

    `tenants` holds the role in each tenant. An operator has all rights in all tenants.
    """

    name: str
    tenants: Mapping[str, Role] = field(default_factory=dict)
    is_operator: bool = False
    display_name: str = ""


def manager_of(person: Person, blocked_in: frozenset[str] = frozenset()) -> Manager:
    """The manager that a verified token names. The role `operator` counts beyond its tenant.

    Roles in the tenants where the person is blocked do not count.
    """
    roles = {name: role for name, role in person.tenants.items() if name not in blocked_in}
    return Manager(
        person.user,
        roles,
        is_operator=Role.OPERATOR in roles.values(),
        display_name=person.display_name,
    )


def has_role(manager: Manager, least: Role, tenant: str) -> bool:
    """Whether the manager has at least this role in the tenant."""
    if manager.is_operator:
        return True
    role = manager.tenants.get(tenant)
    return role is not None and least is not Role.OPERATOR and _RANK[role] >= _RANK[least]


def has_any(manager: Manager, least: Role) -> bool:
    """Whether the manager has at least this role in any tenant."""
    return manager.is_operator or any(has_role(manager, least, one) for one in manager.tenants)


def owns(manager: Manager, tenant: str, user: str) -> bool:
    """Whether something of this tenant's user is the manager's own."""
    return manager.name == user and has_role(manager, Role.USER, tenant)
