"""`headgate` with a clock that is wrong by as many seconds as a file says.

python stepped_clock.py FILE serve ...
"""

import sys
from pathlib import Path
from unittest.mock import patch

from headgate.cli import main, running
from headgate.core.clock import SystemClock


class SteppedClock(SystemClock):
    """The machine's clock and what the file says now."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now_s(self) -> float:
        return super().now_s() + float(self._file.read_text())


if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    # Fails where the commands take their clock from another name: a test must not go without it.
    with patch.object(running, "SystemClock", lambda: SteppedClock(file)):
        main()
