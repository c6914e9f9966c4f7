"""Server-sent events, and what every writer of an answer offers to the engine."""

import json
from collections.abc import Mapping
from typing import Protocol

from headgate.simulator.vllm_errors import engine_dead

DONE = b"data: [DONE]\n\n"
"""The end mark of chat and completions streams; responses and messages have none."""


Times = Mapping[str, float | None]
"""The times of one answer in milliseconds, by the names of vLLM's --enable-per-request-metrics."""


class Writer(Protocol):
    """One answer in the words of its API. Each list item is one event, with its blank line."""

    def body(self, times: Times | None) -> bytes:
        """The whole answer, not streamed; with its `times`, if it tells them."""
        ...

    def opening(self) -> list[bytes]:
        """Events at once, before the first token."""
        ...

    def step(self, position: int) -> list[bytes]:
        """Events of one engine step, counted from 0; steps come in order, each once."""
        ...

    def closing(self) -> list[bytes]:
        """Events after the last token."""
        ...

    def broken(self) -> list[bytes] | None:
        """The last events when the engine dies; None: the connection is cut instead."""
        ...


def data_event(data: str) -> bytes:
    """An event without a name."""
    return f"data: {data}\n\n".encode()


def named_event(name: str, data: str) -> bytes:
    """An event with a name."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def error_events() -> list[bytes]:
    """The error inside a 200 of chat and completions: the stream then ends as if all were well."""
    dead = engine_dead()
    error = {"message": dead.message, "type": dead.kind, "param": None, "code": dead.status}
    return [data_event(json.dumps({"error": error})), DONE]
