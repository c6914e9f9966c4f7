"""Pins in this process: the whole memory of one box, and the cache in front of Redis."""

from collections import OrderedDict
from dataclasses import dataclass

from extproc.types import Pin, SizePin
from extproc.versions import PinnedVersion
from headgate.core.clock import Clock

MAX_PINS = 100_000
"""About 20 MB. Beyond it, the least recently used pin is forgotten."""


@dataclass(slots=True)
class _Remembered:
    choice: str
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
        if kept is None or kept.until_s <= self._clock.now_s() or kept.choice not in pin.live:
            return None
        return kept.choice

    def remaining_s(self, pin: Pin) -> float:
        """How long the pin stays remembered without another request, in seconds."""
        kept = self._kept.get(pin.key)
        return 0.0 if kept is None else kept.until_s - self._clock.now_s()

    def remember(self, pin: Pin, version: str) -> None:
        """Remembers the version for `kept_s` seconds from now."""
        self._keep(pin.key, version, pin.kept_s)

    async def largest(self, pin: SizePin) -> str:
        """The larger of the remembered size and the pin's own, which is remembered from now on."""
        kept = self._kept.get(pin.key)
        model = pin.model
        if kept is not None and kept.until_s > self._clock.now_s() and kept.choice in pin.order:
            model = max(pin.model, kept.choice, key=pin.order.index)
        self._keep(pin.key, model, pin.kept_s)
        return model

    def _keep(self, key: str, choice: str, kept_s: int) -> None:
        self._kept[key] = _Remembered(choice, self._clock.now_s() + kept_s)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
