"""`python -m tests.envoy.dies_after_reserving COMMAND...`: headgate that a lean check kills.

It dies after the reservation is made and before the answer.
"""

import os
import signal
import sys
from typing import Any

from headgate.cli import main
from ratelimit.service import RateLimitService

_reserve = RateLimitService.reserve


async def _reserve_and_die(self: RateLimitService, call: Any) -> Any:
    await _reserve(self, call)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    RateLimitService.reserve = _reserve_and_die  # type: ignore[method-assign]
    sys.exit(main())
