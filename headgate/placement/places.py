"""The pods of one request, the first one first: those of its affinity, as far as they have room."""

from collections.abc import Callable
from typing import TypeAlias

from extproc.types import Placing
from headgate.core.placement_metrics import Choice
from headgate.core.rendezvous import ordered
from headgate.placement.loads import PodLoads

MOST_HOSTS = 4
"""The first try, two retries, and one to spare: more would only make the metadata longer."""
BOUND_PERCENT = 150
"""The most that a pod takes for its affinity, of the mean of all pods. At 125 a fleet with few
requests loses a third of its prefix hits; a hot key makes one pod the busiest either way."""

Addresses: TypeAlias = Callable[[tuple[str, ...]], tuple[str, ...]]
"""The addresses `IP:PORT` of pods as the policy names them, each once, in a fixed order."""


class BoundedPlaces:
    """Rendezvous hashing with bounded loads; `hosts` is an `extproc.affinity.Places`.

    The first pod of a key's order that is below the bound gets the request. The bound is
    `BOUND_PERCENT` of the mean, and at least the `slots` of a pod; without slots there is no bound.
    `count` counts each choice.
    """

    def __init__(
        self,
        addresses: Addresses,
        loads: PodLoads,
        count: Callable[[Choice], None] = lambda _choice: None,
    ) -> None:
        self._addresses = addresses
        self._loads = loads
        self._count = count
        self._turn = 0

    def hosts(self, pods: tuple[str, ...], placing: Placing) -> tuple[str, ...]:
        """See `Places`."""
        addresses = self._addresses(pods)
        if not addresses:
            return ()
        order = ordered(placing.key, addresses) if placing.key else self._least(addresses)
        first = self._first(order, placing.slots) if placing.key else order[0]
        self._loads.begin(first)
        own = Choice.OWN if first == order[0] else Choice.NEXT
        self._count(own if placing.key else Choice.FEWEST)
        return (first, *(pod for pod in order if pod != first))[:MOST_HOSTS]

    def have(self, pods: tuple[str, ...], each: int) -> bool:
        """Whether these pods have `each` requests in flight on average; False if none is known."""
        addresses = self._addresses(pods)
        return bool(addresses) and sum(map(self._loads.of, addresses)) >= each * len(addresses)

    def ended(self, pod: str, began_s: float) -> None:
        """A request to a pod of `hosts` has ended; it began at this Unix time."""
        self._loads.end(pod, began_s)

    def _first(self, order: tuple[str, ...], slots: int | None) -> str:
        if slots is None:
            return order[0]
        loads = [self._loads.of(pod) for pod in order]
        mean_percent = BOUND_PERCENT * (sum(loads) + 1)
        bound = max(slots, -(-mean_percent // (100 * len(order))))
        found = (pod for pod, load in zip(order, loads, strict=True) if load < bound)
        return next(found, min(order, key=self._loads.of))

    def _least(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """The pods with the fewest requests first; equal ones in turns."""
        self._turn = (self._turn + 1) % len(addresses)
        turned = (*addresses[self._turn :], *addresses[: self._turn])
        return tuple(sorted(turned, key=self._loads.of))
