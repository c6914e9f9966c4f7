"""How calls to a store share one event loop: one at a time per key, or some at once. Pure."""

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 16


class Turns:
    """One call at a time for each key: a later call waits, then sees what the earlier one did.

    `async with turns.of(key):` holds the turn.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Event] = {}

    def of(self, key: Hashable) -> "_Turn":
        return _Turn(self._running, key)


class _Turn:
    __slots__ = ("_key", "_running")

    def __init__(self, running: dict[Hashable, asyncio.Event], key: Hashable) -> None:
        self._running = running
        self._key = key

    async def __aenter__(self) -> None:
        while (earlier := self._running.get(self._key)) is not None:
            await earlier.wait()
        self._running[self._key] = asyncio.Event()

    async def __aexit__(self, *_: object) -> None:
        self._running.pop(self._key).set()


def groups(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, 16 at a time: more calls at once would hold up requests."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
