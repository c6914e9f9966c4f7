"""Pins in this process: all there is in one box, and in front of Redis what it has told before."""

from collections import OrderedDict
from dataclasses import dataclass

from extproc.versions import Kept, Pin
from headgate.core.clock import Clock

MAX_PINS = 100_000
"""Some 20 MB. Beyond it the one that was used least recently is forgotten."""


@dataclass(slots=True)
class _Kept:
    version: str
    until_s: float


class MemoryPins:
    """Remembers the last MAX_PINS that were used."""

    def __init__(self, clock: Clock, most: int = MAX_PINS) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def keep(self, pin: Pin) -> Kept:
        """The remembered version, or the pin's own from now on."""
        known = self.known(pin)
        self.remember(pin, known or pin.version)
        return Kept(known or pin.version, known is not None)

    def known(self, pin: Pin) -> str | None:
        """The remembered version, if it still holds."""
        kept = self._kept.get(pin.key)
        if kept is None or kept.until_s <= self._clock.now_s() or kept.version not in pin.live:
            return None
        return kept.version

    def left_s(self, pin: Pin) -> float:
        """How long it will be remembered without another request."""
        kept = self._kept.get(pin.key)
        return 0.0 if kept is None else kept.until_s - self._clock.now_s()

    def remember(self, pin: Pin, version: str) -> None:
        """Keeps it until `kept_s` from now."""
        self._kept[pin.key] = _Kept(version, self._clock.now_s() + pin.kept_s)
        self._kept.move_to_end(pin.key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
