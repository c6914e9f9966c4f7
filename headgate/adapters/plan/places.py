"""Gives versions their places: K of N pods by rendezvous, with slots and few moves. Pure.

A version that has a place keeps it. One that needs a place takes a free slot of the pod that is
first in its order of rendezvous. Without a free slot it takes that of the version that was used
least recently of all, if nobody uses that one. A second place takes the only place of another only
if that one is rarely used.
"""

from collections.abc import Iterable, Mapping, Sequence

from headgate.adapters.plan.values import IDLE_S, RARE_S, Spot, Wanted
from headgate.core.rendezvous import ordered


def placed(
    wanted: Sequence[Wanted], had: Iterable[Spot], slots: Mapping[str, int], now_s: float
) -> frozenset[Spot]:
    """The places of all versions on pods with these numbers of slots.

    Every version has its first place before any has a second one. Where none is left for the first
    place of a version, there is none for those that were used before it.
    """
    board = _Board(wanted, slots, now_s)
    board.keep(had)
    before = None
    while before != board.spots:  # a version loses a place only to one that was used later
        before = board.spots
        board.give_all()
    return board.spots


class _Board:
    """The places while they are given."""

    def __init__(self, wanted: Sequence[Wanted], slots: Mapping[str, int], now_s: float) -> None:
        self.order = sorted(wanted, key=lambda one: (-one.used_s, one.version))
        self._wanted = {one.version: one for one in wanted}
        self._slots = slots
        self._now_s = now_s
        self._on: dict[str, set[str]] = {pod: set() for pod in slots}
        self._pods: dict[str, set[str]] = {one.version: set() for one in wanted}

    @property
    def spots(self) -> frozenset[Spot]:
        return frozenset(Spot(pod, version) for pod, here in self._on.items() for version in here)

    def keep(self, had: Iterable[Spot]) -> None:
        """Keeps the places of before, the most recently used first, as far as there are slots."""
        pods: dict[str, list[str]] = {}
        for pod, version in sorted(had):
            if pod in self._slots:
                pods.setdefault(version, []).append(pod)
        for one in self.order:
            for pod in ordered(one.version, tuple(pods.get(one.version, ())))[: one.copies]:
                if len(self._on[pod]) < self._slots[pod]:
                    self._put(pod, one.version)

    def give_all(self) -> None:
        """Gives each version the places that it lacks: first places first."""
        most = max((one.copies for one in self.order), default=0)
        for copies in range(1, most + 1):
            for one in self.order:
                if one.copies >= copies and not self.give(one, copies) and copies == 1:
                    break

    def give(self, one: Wanted, copies: int) -> bool:
        """Gives the version its place number `copies`, if it has those before it.

        False if there is no such place.
        """
        if len(self._pods[one.version]) != copies - 1:
            return True
        pods = [pod for pod in self._slots if pod not in self._pods[one.version]]
        if self._take_free(one.version, pods):
            return True
        spot = self._least_recent(one, pods, copies)
        if spot is None:
            return False
        self._on[spot.pod].discard(spot.version)
        self._pods[spot.version].discard(spot.pod)
        self._put(spot.pod, one.version)
        loser = self._wanted[spot.version]  # used before `one`, so this comes to an end
        self.give(loser, len(self._pods[spot.version]) + 1)
        return True

    def _take_free(self, version: str, pods: Iterable[str]) -> bool:
        free = [pod for pod in pods if len(self._on[pod]) < self._slots[pod]]
        if free:
            self._put(ordered(version, tuple(free))[0], version)
        return bool(free)

    def _least_recent(self, one: Wanted, pods: Iterable[str], copies: int) -> Spot | None:
        """The place whose version was used least recently; None if all are used, or more recently.

        A version must be unused for `IDLE_S` and as long before `one`, or two of them would take
        turns.
        """
        bound_s = one.used_s - IDLE_S
        spots = [
            (self._wanted[version].used_s, version, pod)
            for pod in pods
            for version in self._on[pod]
            if self._wanted[version].used_s < bound_s
            and self._wanted[version].is_idle(self._now_s, self._kept_s(version, copies))
        ]
        if not spots:
            return None
        _, version, pod = min(spots)
        return Spot(pod, version)

    def _kept_s(self, version: str, copies: int) -> float:
        """How long a version keeps a place unused, while another wants its place `copies`."""
        return RARE_S if copies > 1 and len(self._pods[version]) == 1 else IDLE_S

    def _put(self, pod: str, version: str) -> None:
        self._on[pod].add(version)
        self._pods[version].add(pod)
