"""`headgate`, with every message that its hooks get and give written down.

Usage: `python tests/compat/program.py FILE ARGUMENTS...`. One line of JSON for each event: which
call, which method, when, and the bytes of the message in base64.
"""

import base64
import functools
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from headgate.cli import main
from headgate.core.rpc import Method
from headgate.program.app import Hooks


class Recorder:
    """Writes the events of all calls to one file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._calls = itertools.count()

    def call(self, method: str) -> Callable[[str, bytes], None]:
        """Begins a call; returns the function that writes down one of its messages."""
        number = next(self._calls)

        def write(direction: str, data: bytes) -> None:
            text = base64.b64encode(data).decode()
            event = {"call": number, "method": method, "at_s": time.time(), direction: text}
            print(json.dumps(event), file=self._file, flush=True)

        return write

    def recorded(self, method: Method) -> Method:
        """The same method, whose messages are written down as the bytes that they are."""
        record = self._streamed if method.gives_stream else self._once
        behavior = functools.partial(record, method)
        return replace(method, behavior=behavior, read=bytes, write=bytes)

    async def _once(self, method: Method, asked: Any, context: Any) -> bytes:
        event = self.call(method.behavior.__name__)
        if method.takes_stream:
            return method.write(await method.behavior(_requests(method, asked, event), context))
        event("request", asked)
        answer = method.write(await method.behavior(method.read(asked), context))
        event("response", answer)
        return answer

    async def _streamed(self, method: Method, asked: Any, context: Any) -> AsyncIterator[bytes]:
        event = self.call(method.behavior.__name__)
        async for answer in method.behavior(_requests(method, asked, event), context):
            data = method.write(answer)
            event("response", data)
            yield data


async def _requests(
    method: Method, messages: AsyncIterator[bytes], event: Callable[[str, bytes], None]
) -> AsyncIterator[Any]:
    async for data in messages:
        event("request", data if method.gives_stream else _without_node(data))
        yield method.read(data)


def record_to(file: TextIO) -> None:
    """Makes every method of the hooks a recorded one; the health service does not count."""
    recorder, methods = Recorder(file), Hooks.methods
    Hooks.methods = lambda hooks: tuple(map(recorder.recorded, methods(hooks)))  # type: ignore[method-assign]


def _without_node(data: bytes) -> bytes:
    """An access log message without its first field: 60 KB that say what this Envoy is."""
    if data[:1] != b"\x0a":
        return data
    length, shift, at = 0, 0, 1
    while True:
        length |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return data[at + length :]


if __name__ == "__main__":
    with Path(sys.argv.pop(1)).open("w", encoding="utf-8") as recording:
        record_to(recording)
        main()
