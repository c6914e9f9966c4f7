"""`headgate`, with every message that its hooks get and give written down.

Usage: `python tests/compat/program.py FILE ARGUMENTS...`. One line of JSON for each event: which
call, which method, when, and the bytes of the message in base64.
"""

import base64
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO

import grpc

Codec = Callable[[Any], Any]


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

    def unary(self, behavior: Callable[..., Awaitable[Any]], read: Codec, write: Codec) -> Any:
        """Records a call with one message each way."""

        async def recorded(data: bytes, context: Any) -> bytes:
            event = self.call(behavior.__name__)
            event("request", data)
            answer: bytes = write(await behavior(read(data), context))
            event("response", answer)
            return answer

        return grpc.unary_unary_rpc_method_handler(recorded)

    def streams(
        self, behavior: Callable[..., AsyncIterator[Any]], read: Codec, write: Codec
    ) -> Any:
        """Records a call with many messages each way."""

        async def recorded(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            event = self.call(behavior.__name__)
            async for answer in behavior(self._requests(messages, event, read), context):
                data = write(answer)
                event("response", data)
                yield data

        return grpc.stream_stream_rpc_method_handler(recorded)

    def stream(self, behavior: Callable[..., Awaitable[Any]], read: Codec, write: Codec) -> Any:
        """Records a call with many messages and one answer."""

        async def recorded(messages: AsyncIterator[bytes], context: Any) -> bytes:
            event = self.call(behavior.__name__)
            answer: bytes = write(await behavior(self._requests(messages, event, read), context))
            return answer

        return grpc.stream_unary_rpc_method_handler(recorded)

    async def _requests(
        self, messages: AsyncIterator[bytes], event: Callable[[str, bytes], None], read: Codec
    ) -> AsyncIterator[Any]:
        async for data in messages:
            event("request", data if read is not None else _without_node(data))
            yield data if read is None else read(data)


def record_to(file: TextIO) -> None:
    """Makes every gRPC handler that is built from now on a recorded one."""
    recorder = Recorder(file)
    for name, record in (
        ("unary_unary_rpc_method_handler", recorder.unary),
        ("stream_stream_rpc_method_handler", recorder.streams),
        ("stream_unary_rpc_method_handler", recorder.stream),
    ):
        _replace(name, record)


def _replace(name: str, record: Callable[..., Any]) -> None:
    original = getattr(grpc, name)

    def handler(
        behavior: Any, request_deserializer: Any = None, response_serializer: Any = None
    ) -> Any:
        if not _is_ours(behavior):
            return original(behavior, request_deserializer, response_serializer)
        setattr(grpc, name, original)
        try:
            return record(behavior, request_deserializer, response_serializer)
        finally:
            setattr(grpc, name, handler)

    setattr(grpc, name, handler)


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


def _is_ours(behavior: Any) -> bool:
    """Whether a hook of ours answers; the health service does not count."""
    return not str(behavior.__module__).startswith("grpc")


if __name__ == "__main__":
    with Path(sys.argv.pop(1)).open("w", encoding="utf-8") as recording:
        record_to(recording)
        from headgate.cli import main

        main()
