"""/v1/messages (Anthropic): the answer and its events as vLLM 0.32 writes them."""

from typing import Any

from headgate.simulator.generate import Choice, GeneratedAnswer
from headgate.simulator.streams import Times, named_event
from headgate.simulator.vllm_errors import engine_dead, to_json


class MessagesWriter:
    """Writes one answer."""

    def __init__(self, answer: GeneratedAnswer) -> None:
        self._answer = answer
        self._choice: Choice = answer.choices[0]
        self._block_open = False

    def body(self, _: Times | None) -> bytes:
        """The answer that is not streamed, without null members."""
        body = self._message_start() | {
            "content": [{"type": "text", "text": self._choice.text}],
            "model": self._answer.model,
            "stop_reason": self._stop_reason(),
            "usage": self._usage(),
        }
        return to_json(body).encode()

    def opening(self) -> list[bytes]:
        """Nothing comes before the first token."""
        return []

    def step(self, position: int) -> list[bytes]:
        """message_start and the block's start with the first token, then one delta for each."""
        events = [self._start()] if position == 0 else []
        piece = self._choice.piece(position)
        if not piece:
            return events
        if not self._block_open:
            self._block_open = True
            block = '{"type":"content_block_start","content_block":{"type":"text","text":""}'
            events.append(named_event("content_block_start", f'{block},"index":0}}'))
        delta = f'{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{piece}"}}'
        events.append(named_event("content_block_delta", f'{delta},"index":0}}'))
        return events

    def closing(self) -> list[bytes]:
        """The block's end, the final usage, message_stop. There is no [DONE]."""
        events = []
        if self._block_open:
            stop = '{"type":"content_block_stop","index":0}'
            events.append(named_event("content_block_stop", stop))
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": self._stop_reason(), "stop_sequence": None},
            "usage": self._usage(),
        }
        events.append(named_event("message_delta", to_json(delta)))
        events.append(named_event("message_stop", '{"type":"message_stop"}'))
        return events

    def broken(self) -> list[bytes] | None:
        """An error event, and no message_stop."""
        error = {"type": "internal_error", "message": engine_dead().message}
        return [named_event("error", to_json({"type": "error", "error": error}))]

    def _start(self) -> bytes:
        usage = {"input_tokens": self._choice.prompt_tokens, "output_tokens": 0}
        message = self._message_start() | {
            "content": [],
            "model": self._answer.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return named_event("message_start", to_json({"type": "message_start", "message": message}))

    def _message_start(self) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self._answer.id}", "type": "message", "role": "assistant"}

    def _stop_reason(self) -> str:
        return "max_tokens" if self._choice.finish_reason == "length" else "end_turn"

    def _usage(self) -> dict[str, Any]:
        """With cache fields, input_tokens excludes what they count."""
        prompt, output = self._choice.prompt_tokens, self._choice.tokens
        if not self._answer.show_details:
            return {"input_tokens": prompt, "output_tokens": output}
        cached = self._answer.cached_tokens[0]
        return {
            "input_tokens": prompt - cached,
            "output_tokens": output,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
        }
