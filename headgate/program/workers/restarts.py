"""How long a worker that ended waits for its next start. Pure."""

_FIRST_S = 0.1
_LONGEST_S = 10.0
_STABLE_S = 60.0
"""A worker that ran so long ends for a reason of its own, not for that of its last end."""


class Backoff:
    """The pauses of one worker: each is twice the one before, up to ten seconds."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S

    def pause_s(self, ran_s: float) -> float:
        """The pause after a worker that ran for `ran_s`; 0 for one that did not start."""
        if ran_s >= _STABLE_S:
            self._next_s = _FIRST_S
        pause_s = self._next_s
        self._next_s = min(_LONGEST_S, 2 * pause_s)
        return pause_s
