"""Collects one answer while it passes, and says whether it may be kept. Pure."""

import re
from json import loads

from extproc.cache.answers import KeptAnswer
from extproc.counting.counter import AnswerContext, AnswerCounter, AnswerHead
from extproc.types import ClientUsage
from headgate.core.apis import Api
from headgate.core.settlement import Usage, read_usage

_KINDS = ("application/json", "text/event-stream")
_BROKEN_OFF = re.compile(rb'"finish_reason"\s*:\s*"(?:abort|error)"')
"""How vLLM ends an answer that it did not finish."""


class Recording:
    """The raw answer of vLLM to one request, of at most `max_bytes`."""

    def __init__(self, api: Api, max_bytes: int) -> None:
        self._api = api
        self._max_bytes = max_bytes
        self._head: AnswerHead | None = None
        self._parts: list[bytes] = []
        self.size_bytes = 0

    def begin(self, head: AnswerHead) -> bool:
        """Whether an answer with these headers may be kept, as far as they tell."""
        self._head = head
        is_known = head.content_type.lower().startswith(_KINDS)
        return head.status == 200 and head.encoding is None and is_known

    def add(self, chunk: bytes) -> bool:
        """Adds the next bytes; False once there are too many."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            self._parts.clear()
            return False
        self._parts.append(chunk)
        return True

    def answer(self, now_s: float) -> KeptAnswer | None:
        """The answer, once its last byte is here; None unless it is whole and has its usage.

        A stream is whole with its own last event, a JSON answer if it can be read to its end.
        """
        body, head = b"".join(self._parts), self._head
        if head is None or _BROKEN_OFF.search(body):
            return None
        usage = usage_of(self._api, head.content_type, body)
        if not usage.complete or usage.error or usage.prompt is None or usage.completion is None:
            return None
        if head.content_type.lower().startswith(_KINDS[0]) and not _is_json(body):
            return None
        return KeptAnswer(now_s, head.content_type, usage.prompt, usage.completion, body)


def usage_of(api: Api, content_type: str, body: bytes) -> Usage:
    """The usage in a whole answer, as the tap counts it."""
    context = AnswerContext(api, ClientUsage.UNTOUCHED, 1)
    counter = AnswerCounter(context, AnswerHead(200, content_type, None), lambda: 0)
    counted = {**counter.begin(), **counter.feed(body, True).usage}
    return read_usage({key.value: text for key, text in counted.items()}, abandoned=False)


def _is_json(body: bytes) -> bool:
    try:
        loads(body)
    except (ValueError, RecursionError):
        return False
    return True
