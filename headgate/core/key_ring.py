"""The part of the database that the hooks know: keys issued at run time, and blocked users.

The policy file's keys are not here.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from headgate.core.policy import (
    Caller,
    CompiledPolicy,
    Count,
    Limit,
    PricedTokens,
    Tenant,
    Windowed,
)
from headgate.core.prices import PriceBook

RUN_TIME_MARK = "~"
"""The start of the id of each key that was issued at run time. The policy file cannot use it, so
that no key of the file ever has the scope or the counters of such a key."""


class KeysUnavailableError(Exception):
    """It is not known here who has the key, or what it may do. Nobody is let in by a guess."""


@dataclass(frozen=True, slots=True)
class KeyScope:
    """The part of its tenant that a key may use. `models` None means all of the tenant's models.

    `limits` count the key alone, beside the limits of the tenant. Those of cost have no prices.
    """

    models: frozenset[str] | None = None
    limits: tuple[Limit, ...] = ()


WHOLE_TENANT = KeyScope()


class KeyRing(Protocol):
    """The keys that were issued at run time and the blocked users, in this process' memory."""

    def find(self, digest: bytes) -> Caller | None:
        """The caller of a live key; None if there is none.

        Raises KeysUnavailableError if that cannot be known.
        """
        ...

    def scope_of(self, key: str) -> KeyScope | None:
        """The scope of a key by its id, also of one that has just ended. None for an unknown id."""
        ...

    def is_blocked(self, tenant: str, user: str) -> bool:
        """Whether the user is blocked in the tenant, whatever they show."""
        ...


class NoKeys:
    """The ring of a program without a database."""

    def find(self, digest: bytes) -> Caller | None:  # noqa: ARG002
        """None for every digest."""
        return None

    def scope_of(self, key: str) -> KeyScope | None:  # noqa: ARG002
        """None for every id."""
        return None

    def is_blocked(self, tenant: str, user: str) -> bool:  # noqa: ARG002
        """False for everybody."""
        return False


NO_KEYS = NoKeys()


class UnscopedKeys(NoKeys):
    """Stands for keys of which only the id is known, as in records: each has its whole tenant."""

    def scope_of(self, key: str) -> KeyScope | None:  # noqa: ARG002
        """The whole tenant for every id."""
        return WHOLE_TENANT


def is_run_time(key: str) -> bool:
    """Whether the id is that of a key that was issued at run time."""
    return key.startswith(RUN_TIME_MARK)


def tenant_of(caller: Caller, policy: CompiledPolicy, keys: KeyRing) -> Tenant | None:
    """The tenant of a caller, narrowed to what its key may use; None if the policy lacks it.

    A key may be newer than this replica's memory. Its request is then refused, because without its
    scope it could use too much. With a limit of cost, a key has no model without prices. Raises
    KeysUnavailableError.
    """
    tenant = policy.tenants.get(caller.tenant)
    if tenant is None or not caller.key.startswith(RUN_TIME_MARK):
        return tenant
    scope = keys.scope_of(caller.key)
    if scope is None:
        raise KeysUnavailableError(f"the key {caller.key} is not known here yet")
    if scope is WHOLE_TENANT:
        return tenant
    models = tenant.models if scope.models is None else tenant.models & scope.models
    if any(limit.count is Count.COST for limit in scope.limits):
        models &= {name for name, book in _books(tenant, policy).items() if book.all_periods}
    limits = (_priced(limit, tenant, policy) for limit in scope.limits)
    return replace(tenant, models=models, limits=(*tenant.limits, *limits))


def _priced(limit: Limit, tenant: Tenant, policy: CompiledPolicy) -> Limit:
    """The limit of a key; if it is of cost, with the prices of all models of its tenant.

    A request that was let in before an edit of its key settles by a model that the key had then.
    """
    match limit.shape:
        case Windowed(per, PricedTokens()):
            return replace(limit, shape=Windowed(per, PricedTokens(_books(tenant, policy))))
        case _:
            return limit


def _books(tenant: Tenant, policy: CompiledPolicy) -> dict[str, PriceBook]:
    models = (policy.models.get(name) for name in tenant.models)
    return {model.name: model.prices for model in models if model is not None}
