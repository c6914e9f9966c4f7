"""The versions of models that do not answer, as the access log tells. Pure.

Requests leave such a version. In each `HOLD_S` one request of a replica tries it, and an answer
ends the outage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

HOLD_S = 10.0
"""Where Envoy cannot turn to the spare version by itself, each try costs a client a 503."""

Served: TypeAlias = tuple[str, str]
"""A base model and one of its versions."""
Told: TypeAlias = Mapping[Served, float | None]
"""When an outage began, in Unix time; None for one that has ended."""


@dataclass(slots=True)
class _Outage:
    since_s: float
    next_try_s: float


class Outages:
    """The outages that this replica has seen, and those that others told it."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._known: dict[Served, _Outage] = {}
        self._untold: dict[Served, float | None] = {}
        self.is_used = False
        """Whether anybody asked, or told, since the last exchange."""

    def is_down(self, served: Served) -> bool:
        """Whether a request should leave this version; False for the one that tries it."""
        self.is_used = True
        known, now_s = self._known.get(served), self._now_s()
        if known is None:
            return False
        if now_s < known.next_try_s:
            return True
        known.next_try_s = now_s + HOLD_S
        return False

    def is_known(self, served: Served) -> bool:
        """Whether this version is in an outage, tries or not."""
        return served in self._known

    def failed(self, served: Served) -> None:
        """A request could not reach this version."""
        now_s = self._now_s()
        known = self._known.setdefault(served, _Outage(now_s, now_s + HOLD_S))
        self._untold[served], self.is_used = known.since_s, True

    def answered(self, served: Served, began_s: float) -> None:
        """The version answered a request that began then. An older request tells nothing."""
        known = self._known.get(served)
        if known is not None and began_s >= known.since_s:
            del self._known[served]
            self._untold[served], self.is_used = None, True

    def untold(self) -> Told:
        """The changes that other replicas do not know yet."""
        self.is_used = False
        return dict(self._untold)

    def learn(self, told: Told, all_replicas: Mapping[Served, float]) -> None:
        """Others know `told` now. `all_replicas` are the outages that they know."""
        self._untold = {each: at for each, at in self._untold.items() if told.get(each, -1.0) != at}
        now_s = self._now_s()
        outages = {
            each: self._known.get(each) or _Outage(since_s, now_s + HOLD_S)
            for each, since_s in all_replicas.items()
            if self._untold.get(each, since_s) is not None
        }
        own = {each: self._known[each] for each in self._untold.keys() & self._known.keys()}
        self._known = {**outages, **own}
