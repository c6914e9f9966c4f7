"""One round of the reconciler: from what is wanted and seen to places and actions.

It starts from nothing but the lists of the pods. So a round that fails in the middle leaves nothing
to repair, and the next one sees what is left to do.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from headgate.adapters.plan.places import placed
from headgate.adapters.plan.values import (
    GONE_S,
    GRACE_S,
    Action,
    Known,
    Load,
    Plan,
    Pool,
    SeenPod,
    Spot,
    Unload,
    Wanted,
)


def plan(
    wanted: Sequence[Wanted], pool: Pool, known: Known, roots: Mapping[str, str], now_s: float
) -> Plan:
    """The places, the open ones, and at most one action for each pod.

    `roots` are the folders from which a pod loads each version of the registry. Adapters under
    other names are not ours: they take their part of the pod, and are left alone.
    """
    pods = [pod for pod in pool.pods if pod.listed is not None or pod.silent_s < GONE_S]
    slots = {pod.address: max(0, pool.live - len(_foreign(pod, roots))) for pod in pods}
    loaded = {Spot(pod.address, version) for pod in pods for version in _ours(pod, roots)}
    able = [_able(one, known, loaded) for one in wanted]
    places = placed([one for one in able if one.copies], known.places, slots, now_s)
    uses = {one.version: one for one in wanted}
    actions = (_action(pod, pool, _Round(places, known, roots, uses, now_s)) for pod in pods)
    return Plan(places=places, open=places & loaded, actions=tuple(filter(None, actions)))


def _able(one: Wanted, known: Known, loaded: AbstractSet[Spot]) -> Wanted:
    """The version with the copies that it can have."""
    if one.version not in known.failed:
        return one
    kept = sum(spot.version == one.version for spot in known.places & loaded)
    return replace(one, copies=min(one.copies, kept))


class _Round:
    """The values on which the actions of all pods depend."""

    __slots__ = ("known", "now_s", "places", "roots", "uses")

    def __init__(
        self,
        places: frozenset[Spot],
        known: Known,
        roots: Mapping[str, str],
        uses: Mapping[str, Wanted],
        now_s: float,
    ) -> None:
        self.places = places
        self.known = known
        self.roots = roots
        self.uses = uses
        self.now_s = now_s

    def is_unused(self, version: str) -> bool:
        """Whether it may be unloaded: its last request has ended, and the grace is over."""
        use = self.uses.get(version)
        return use is None or use.is_idle(self.now_s, GRACE_S)

    def is_withdrawn(self, version: str) -> bool:
        """Whether no pod shall have it any more."""
        use = self.uses.get(version)
        return use is None or use.copies == 0

    def last_used_s(self, version: str) -> float:
        use = self.uses.get(version)
        return 0.0 if use is None else use.used_s


def _action(pod: SeenPod, pool: Pool, now: _Round) -> Action | None:
    """The next step of a pod: first what must go, then what is missing."""
    if pod.listed is None:
        return None
    here = {spot.version for spot in now.places if spot.pod == pod.address}
    spare = [
        name
        for name in pod.listed
        if name in now.roots and name not in here and now.is_unused(name)
    ]
    if ended := [name for name in spare if now.is_withdrawn(name)]:
        return Unload(Spot(pod.address, min(ended)))
    spots = {Spot(pod.address, name) for name in here - _ours(pod, now.roots)}
    missing = [spot.version for spot in spots - now.known.delayed]
    if not missing:
        return None
    first = min(missing, key=lambda name: (-now.last_used_s(name), name))
    return _loading(pod, pool, now, Spot(pod.address, first), spare)


def _loading(
    pod: SeenPod, pool: Pool, now: _Round, spot: Spot, spare: Sequence[str]
) -> Action | None:
    """The load, or the unload that makes room for it: of what was used least recently."""
    listed = pod.listed or {}
    if spot.version in listed:  # from another folder: somebody else has loaded it
        return Unload(spot) if now.is_unused(spot.version) else None
    if len(listed) < pool.listed:
        return Load(spot)
    if not spare:
        return None
    return Unload(Spot(spot.pod, min(spare, key=lambda name: (now.last_used_s(name), name))))


def _ours(pod: SeenPod, roots: Mapping[str, str]) -> set[str]:
    """The versions that the pod has loaded from our folder."""
    return {name for name, root in (pod.listed or {}).items() if roots.get(name) == root}


def _foreign(pod: SeenPod, roots: Mapping[str, str]) -> Sequence[str]:
    return [name for name in pod.listed or {} if name not in roots]
