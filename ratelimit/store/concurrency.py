"""How calls to a store share one event loop: one at a time per key, or some at once. Pure."""

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 16


_Running = dict[Hashable, asyncio.Event | None]
"""The keys whose turn is held. The event tells those who wait for the end; most often nobody."""


class Turns:
    """One call at a time for each key: a later call waits, then sees what the earlier one did.

    `async with turns.of(key):` holds the turn.
    """

    def __init__(self) -> None:
        running: _Running = {}
        self.of = partial(_Turn, running)


class _Turn:
    __slots__ = ("_key", "_running")

    def __init__(self, running: _Running, key: Hashable) -> None:
        self._running = running
        self._key = key

    async def __aenter__(self) -> None:
        running, key = self._running, self._key
        while key in running:
            ended = running[key]
            if ended is None:
                ended = running[key] = asyncio.Event()
            await ended.wait()
        running[key] = None

    async def __aexit__(self, *_: object) -> None:
        ended = self._running.pop(self._key)
        if ended is not None:
            ended.set()


def groups(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, 16 at a time: more calls at once would hold up requests."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
