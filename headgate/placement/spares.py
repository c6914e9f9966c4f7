"""Decides when the spare version of a model answers in place of a request's own version."""

import logging
from collections.abc import Callable

from accesslog.reached import Reached
from extproc.failover import Move
from extproc.types import Placing
from headgate.core.failover import Failover
from headgate.placement.outages import Outages, Served
from headgate.placement.places import BoundedPlaces

log = logging.getLogger("headgate.placement")


class Spares:
    """`move` is an `extproc.failover.Moves`, `told` an `accesslog.calls.TellReached`.

    `failover_of` returns the spare version of a base model.
    """

    def __init__(
        self,
        places: BoundedPlaces,
        outages: Outages,
        failover_of: Callable[[str], Failover | None],
    ) -> None:
        self._places = places
        self._outages = outages
        self._failover_of = failover_of

    def move(self, own: Served, failover: Failover, placing: Placing | None) -> Move | None:
        """Why a request goes to the spare version. It stays if that one is down or full itself."""
        spare = (own[0], failover.to)
        if self._outages.is_down(own):
            return None if self._outages.is_known(spare) else Move.DOWN
        if placing is None or placing.slots is None or failover.queue_over is None:
            return None
        if self._outages.is_known(spare):
            return None
        most = placing.slots + failover.queue_over
        is_full = self._places.have(placing.of(own[1]), most)
        return Move.FULL if is_full and not self._places.have(placing.of(spare[1]), most) else None

    def told(self, reached: Reached) -> None:
        """See `accesslog.calls.TellReached`."""
        served = (reached.base, reached.version)
        failover = self._failover_of(reached.base)
        if failover is None:
            return
        was_known = self._outages.is_known(served)
        if reached.answered:
            self._outages.answered(served, reached.began_s)
        else:
            self._outages.failed(served)
        if self._outages.is_known(served) != was_known:
            _say(served, failover, is_down=not was_known)


def _say(served: Served, failover: Failover, *, is_down: bool) -> None:
    base, version = served
    if not is_down:
        log.info("version %s of %s answers again", version, base)
    elif version == failover.to:
        log.warning("the spare version %s of %s does not answer", version, base)
    else:
        text = "version %s of %s does not answer: version %s takes its requests"
        log.warning(text, version, base, failover.to)
