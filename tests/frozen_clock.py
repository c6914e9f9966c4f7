"""`headgate` with a frozen wall clock, so that no window ends while a test runs.

python -m tests.frozen_clock up ...
"""

from unittest.mock import patch

from headgate import cli
from headgate.core.clock import SystemClock
from tests.patience import patient


class FrozenClock(SystemClock):
    """The machine's clock, but it is always the time of the start."""

    def __init__(self) -> None:
        self._start_s = super().now_s()

    def now_s(self) -> float:
        return self._start_s


if __name__ == "__main__":
    clock = FrozenClock()
    with patient(), patch("headgate.cli.running.SystemClock", lambda: clock):
        cli.main()
