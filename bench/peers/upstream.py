"""A canned vLLM: `python -m bench.peers.upstream PORT`. It costs as little as it can.

A chat answer has `max_tokens` tokens. A stream sends one chunk for each of them, and the member
`interval_ms` of the request sets how far apart they are.
"""

import asyncio
import sys
from typing import Any, cast

import msgspec
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
_ID = '"id":"chatcmpl-7f0c1c2b9a","object":"chat.completion%s","created":1790000000,"model":"tiny"'


def _usage(prompt: int, completion: int) -> str:
    total = prompt + completion
    return (
        f'"usage":{{"prompt_tokens":{prompt},"total_tokens":{total},'
        f'"completion_tokens":{completion}}}'
    )


def _chunked(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text.encode())


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = bytearray()
        self._head_bytes = self._needed_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._needed_bytes:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._head_bytes = end + 4
            self._needed_bytes = end + 4 + int(length or 0)
        if len(self._received) >= self._needed_bytes:
            body = bytes(self._received[self._head_bytes : self._needed_bytes])
            del self._received[: self._needed_bytes]
            self._needed_bytes = 0
            self._answer(msgspec.json.decode(body or b"{}"), len(body) // 4)

    def _answer(self, request: dict[str, Any], prompt: int) -> None:
        tokens = request.get("max_tokens", 10)
        if request.get("stream"):
            head = _HEAD % b"text/event-stream; charset=utf-8"
            self._transport.write(head + b"transfer-encoding: chunked\r\n\r\n")
            options = request.get("stream_options") or {}
            asyncio.ensure_future(self._stream(request, options, prompt, tokens))  # noqa: RUF006
            return
        message = f'{{"role":"assistant","content":"{" one" * tokens}"}}'
        body = (
            f'{{{_ID % ""},"choices":[{{"index":0,"message":{message},"logprobs":null,'
            f'"finish_reason":"length"}}],{_usage(prompt, tokens)}}}'
        ).encode()
        head = _HEAD % b"application/json"
        self._transport.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))

    async def _stream(
        self, request: dict[str, Any], options: dict[str, Any], prompt: int, tokens: int
    ) -> None:
        start_s = asyncio.get_running_loop().time()
        for number in range(1, tokens + 1):
            reason = '"length"' if number == tokens else "null"
            usage = f",{_usage(prompt, number)}" if options.get("continuous_usage_stats") else ""
            # LiteLLM ends a stream that repeats itself.
            delta = f'{{"content":" t{number % 10}"}}'
            self._transport.write(
                _chunked(
                    f'data: {{{_ID % ".chunk"},"choices":[{{"index":0,"delta":{delta},'
                    f'"logprobs":null,"finish_reason":{reason},"token_ids":null}}]{usage}}}\n\n'
                )
            )
            until_s = start_s + number * request.get("interval_ms", 10) / 1000
            await asyncio.sleep(max(0.0, until_s - asyncio.get_running_loop().time()))
        if options.get("include_usage"):
            last = f'data: {{{_ID % ".chunk"},"choices":[],{_usage(prompt, tokens)}}}\n\n'
            self._transport.write(_chunked(last))
        self._transport.write(_chunked("data: [DONE]\n\n") + b"0\r\n\r\n")


async def serve(port: int) -> None:
    """Answers on 127.0.0.1:`port`, which several may share, until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port, reuse_port=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
