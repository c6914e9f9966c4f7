"""A model's spare version: it answers where the request's own version cannot, or is full."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failover:
    """The version `to` is the spare one of a model.

    It also takes what comes once `queue_over` requests wait for each pod of the own version, beyond
    the slots of the pod. With None the queue does not matter.
    """

    to: str
    queue_over: int | None = None
