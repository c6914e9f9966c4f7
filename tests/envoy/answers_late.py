"""`python -m tests.envoy.answers_late COMMAND...`: headgate that reserves for bob, and waits.

His check on the lean path never ends, unless his client leaves. It is as if all were very slow.
"""

import asyncio
from typing import Any

from headgate.cli import main
from ratelimit.service import RateLimitService
from tests.patience import patient

_reserve = RateLimitService.reserve


async def _reserve_and_wait(self: RateLimitService, call: Any) -> Any:
    decision = await _reserve(self, call)
    if call.user == "bob":
        await asyncio.Event().wait()
    return decision


if __name__ == "__main__":
    RateLimitService.reserve = _reserve_and_wait  # type: ignore[method-assign]
    with patient():
        main()
