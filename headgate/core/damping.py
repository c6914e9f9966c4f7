"""Log lines of events that come in floods: the first at once, then their number."""

import logging
from collections.abc import Mapping

from headgate.core.clock import Clock

EVERY_S = 10.0
_MOST_KINDS = 1000


class DampedLog:
    """Logs the first event of a kind at once, then one line of the kind in `EVERY_S`.

    That line says how many events had none.
    """

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[object, float] = {}
        self._unsaid: dict[object, int] = {}

    def __call__(
        self, level: int, kind: object, text: str, extra: Mapping[str, object] | None = None
    ) -> None:
        """One event; `extra` is what the log's record gets beside `text`."""
        now_s = self._clock.monotonic_s()
        if now_s - self._said.get(kind, -EVERY_S) < EVERY_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        if len(self._said) >= _MOST_KINDS:
            self._said.clear()
            self._unsaid.clear()
        self._said[kind] = now_s
        more = self._unsaid.pop(kind, 0)
        since = f" (and {more} more since the last such line)" if more else ""
        self._log.log(level, "%s%s", text, since, extra=extra)
