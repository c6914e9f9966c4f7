"""Fakes that tests move by hand."""


class FakeClock:
    """A clock that moves only when it is advanced; both readings move together."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Lets `seconds` pass."""
        self._now_s += seconds
