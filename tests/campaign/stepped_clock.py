"""`headgate` with a clock that is wrong by the seconds that a file names.

python -m tests.campaign.stepped_clock FILE serve ...
"""

import sys
from pathlib import Path
from unittest.mock import patch

from headgate import cli
from headgate.core.clock import SystemClock


class SteppedClock(SystemClock):
    """The machine's clock, plus the offset that the file holds now."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now_s(self) -> float:
        return super().now_s() + float(self._file.read_text())


if __name__ == "__main__":
    clock = SteppedClock(Path(sys.argv.pop(1)))
    with patch("headgate.cli.running.SystemClock", lambda: clock):
        cli.main()
