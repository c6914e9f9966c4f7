"""One call of Process: its stream, what was admitted, and what records the answer."""

import asyncio
from dataclasses import dataclass, replace
from typing import TypeAlias

from extproc import wire
from extproc.cache.cache import Recorder
from extproc.cache.serving import OverLimit, Served
from extproc.cache.wire import MISS_HEADERS, encode_over_limit, encode_served
from extproc.counting.counter import AnswerChunk, AnswerHead
from extproc.stream import AnswerBegin, Replace, RequestStream, Unchanged
from extproc.types import Admit, Answer, Refuse
from headgate._gen.ext_proc_pb2 import HttpBody, HttpHeaders, ProcessingResponse
from headgate.core.rpc import Context

Reply: TypeAlias = Admit | Answer | Refuse | Replace | Unchanged | Served | OverLimit
"""A reply to a message of the request."""

_LONG_BYTES = 256 * 1024
"""From this size on, a piece of an answer is read in a thread, beside other requests. The worst
event of 8 MiB takes a second or two."""


@dataclass(slots=True)
class ProcessCall:
    """The state of one call. `admit` is there if its body is looked up in the answer cache."""

    stream: RequestStream
    admit: Admit | None = None
    recorder: Recorder | None = None

    def encoded(self, reply: Reply) -> ProcessingResponse:
        """The message for a reply. A reply that ends the request after its body ends the stream."""
        stream = self.stream
        match reply:
            case Served(answer=answer):
                head = AnswerHead(200, answer.content_type, None)
                seen = stream.on_kept_answer(head, answer.body)
                return encode_served(reply, seen, stream.model_header)
            case OverLimit():
                stream.end_request()
                return encode_over_limit(reply, stream.request_id)
            case Refuse() if not stream.done:
                stream.end_request()
            case Admit(caching=caching) if caching is not None:
                self.admit = reply
        return wire.encode_reply(reply, stream.wants_answer, stream.request_id)

    def begin_answer(self, message: HttpHeaders) -> AnswerBegin:
        """The headers of the answer."""
        head, is_last = wire.decode_answer_headers(message), message.end_of_stream
        if self.recorder is None:
            return self.stream.on_answer_headers(head, is_last)
        self.recorder.begin(head, is_last)
        begin = self.stream.on_answer_headers(head, is_last, self.recorder.records)
        return replace(begin, headers=(*begin.headers, *MISS_HEADERS))

    async def read_chunk(self, message: HttpBody) -> AnswerChunk:
        """The next bytes of the answer."""
        stream, chunk, is_last = self.stream, message.body, message.end_of_stream
        records = False
        if self.recorder is not None:
            self.recorder.add(chunk, is_last)
            records = self.recorder.records
        if stream.held_bytes + len(chunk) > _LONG_BYTES:
            return await asyncio.to_thread(stream.on_answer_body, chunk, is_last, records)
        return stream.on_answer_body(chunk, is_last, records)

    def close(self) -> None:
        """The call has ended, whether the answer has come to its end or not."""
        if self.recorder is not None:
            self.recorder.close()


def says(context: Context, metadata: tuple[str, str]) -> bool:
    """Whether Envoy's filter says this with its call: what it does, or what it can do."""
    name, value = metadata
    return context.metadata(name) == value
