"""The reservations that one process has decided of late, and remembers. Pure."""

from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from ratelimit.answers import LimitStatus


class State(StrEnum):
    """The state of a reservation, as this process knows it."""

    ASKED = "asked"
    """The store was asked, and its answer has not come or was not waited for: it may hold it."""
    HELD = "held"
    FREE = "free"
    """It meets no limit: the store does not know it."""
    REFUSED = "refused"
    SETTLED = "settled"


class Known(Struct, frozen=True, kw_only=True, gc=False):
    """The state of a reservation here.

    `statuses` are those of its admission, by the counter's key. `used` is what the settlement left
    in use at `settled_s`; it may lack some of them.
    """

    tenant: str
    state: State
    statuses: Mapping[str, LimitStatus] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    settled_s: float = 0.0

    def statuses_now(self) -> tuple[LimitStatus, ...]:
        """The statuses after the last call. Few ask, so that a settlement does not make them."""
        return tuple(
            status.after(self.used[key], self.settled_s) if key in self.used else status
            for key, status in self.statuses.items()
        )


class KnownReservations:
    """The last `kept` reservations, about 1 KB each, and as many ids of requests that have ended.

    A request may end before its reservation is made, as its client left: then only its id is known.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.get = self._known.get
        """What is known of a reservation; None if nothing is."""

    def remember(self, reservation: str, known: Known) -> None:
        self._known[reservation] = known
        self._known.move_to_end(reservation)
        if len(self._known) > self._kept:
            self._known.popitem(last=False)

    def end(self, reservation: str) -> None:
        """The request has ended: no reservation may be made for it from now on."""
        self._ended[reservation] = None
        if len(self._ended) > self._kept:
            self._ended.popitem(last=False)

    def has_ended(self, reservation: str) -> bool:
        return reservation in self._ended
