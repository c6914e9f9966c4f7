"""The spare version of a model: which requests may go there, and when one does. Pure."""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from extproc.types import Placing
from headgate.core.failover import Failover
from headgate.core.policy import Model, Tenant


class Move(StrEnum):
    """The cause for which a request goes to the spare version: labels of headgate_versions."""

    DOWN = "down"
    """Its own version did not answer."""
    FULL = "full"
    """Too many requests wait for its own version."""


Moves: TypeAlias = Callable[[tuple[str, str], Failover, Placing | None], Move | None]
"""Says why a request leaves its own version; None if it stays.

It gets the base model with the own version, the spare version, and the pods of both.
"""


def stays(_own: tuple[str, str], _failover: Failover, _placing: Placing | None) -> None:
    """Leaves each request where it is."""


def failover_of(model: Model, tenant: Tenant) -> Failover | None:
    """The spare version that the tenant may use; None if there is none below its ceiling.

    All periods of its prices count, so that the choice does not change with the date.
    """
    failover, most = model.failover, tenant.failover_ceiling
    if failover is None or most is None:
        return failover
    price = model.prices.dearest_of(failover.to)
    return failover if price.input <= most.input and price.output <= most.output else None
