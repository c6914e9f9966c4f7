"""Pins in this process: the whole memory of one box, and the cache in front of Redis."""

from collections import OrderedDict
from dataclasses import dataclass

from extproc.types import Pin
from extproc.versions import PinnedVersion
from headgate.core.clock import Clock

MAX_PINS = 100_000
"""About 20 MB. Beyond it, the least recently used pin is forgotten."""


@dataclass(slots=True)
class _Remembered:
    version: str
    until_s: float


class MemoryPins:
    """Remembers the MAX_PINS pins that were used last."""

    def __init__(self, clock: Clock, most: int = MAX_PINS) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[str, _Remembered] = OrderedDict()

    async def keep(self, pin: Pin) -> PinnedVersion:
        """The remembered version. Without one, remembers the pin's own version."""
        known = self.known(pin)
        self.remember(pin, known or pin.version)
        return PinnedVersion(known or pin.version, known is not None)

    def known(self, pin: Pin) -> str | None:
        """The remembered version; None if it has expired or lost its weight."""
        kept = self._kept.get(pin.key)
        if kept is None or kept.until_s <= self._clock.now_s() or kept.version not in pin.live:
            return None
        return kept.version

    def remaining_s(self, pin: Pin) -> float:
        """How long the pin stays remembered without another request, in seconds."""
        kept = self._kept.get(pin.key)
        return 0.0 if kept is None else kept.until_s - self._clock.now_s()

    def remember(self, pin: Pin, version: str) -> None:
        """Remembers the version for `kept_s` seconds from now."""
        self._kept[pin.key] = _Remembered(version, self._clock.now_s() + pin.kept_s)
        self._kept.move_to_end(pin.key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
