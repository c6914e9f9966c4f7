"""How a client meets a limit: it fails at once if the wait is long, else it waits and succeeds."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.box import Box, metric

AT_ONCE_S = 30.0
"""A client that sleeps for a month's limit sleeps for days, so any bound shows it."""
_REFUSED = 'headgate_decisions_total{decision="rate_limit_exceeded",hook="ratelimit"}'

T = TypeVar("T")


def refusals_of(box: Box, call: Callable[[], T]) -> tuple[T, int]:
    """The result of a call that must come soon, and how often a limit refused it."""
    before, start_s = metric(box.metrics(), _REFUSED), time.monotonic()
    result = call()
    assert time.monotonic() - start_s < AT_ONCE_S
    return result, int(metric(box.metrics(), _REFUSED) - before)


def use_up(box: Box, user: str) -> None:
    """Asks until the user's limit refuses."""
    while box.chat(user).status_code != 429:
        pass


def timed_out(box: Box, call: Callable[[], T]) -> tuple[T, list[dict[str, Any]]]:
    """The result of a call that Envoy's timeout ends, and the records of its chats.

    Another request follows, which ends at once: its record comes after those of the call.
    """
    before = len(box.records())
    result = call()
    last = box.chat(model="unknown").headers["x-request-id"]
    box.record_of(last)
    return result, [record for record in box.records()[before:] if record["model"] == "tiny"]
