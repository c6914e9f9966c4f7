"""A clock for simulated servers: hours pass in seconds, and a busy machine delays nothing."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _NoWaiting(selectors.SelectSelector):
    """In place of waiting for a time, it makes the time come."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("all tasks wait for each other: nothing will ever happen")
        self.passed_s += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._own = _NoWaiting()
        super().__init__(self._own)

    def time(self) -> float:
        return self._own.passed_s


def run_in_own_time(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs it in an event loop whose time passes only while every task sleeps.

    It may use no sockets and no threads, whose time passes outside.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
