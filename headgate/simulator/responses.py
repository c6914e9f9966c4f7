"""/v1/responses: the answer and its events as vLLM 0.32 writes them.

The response object repeats fields of the request, most of them before `usage`. A reader of the
stream must not take a client's own `usage` in a tool schema for the real one.
"""

from collections.abc import Mapping
from typing import Any

from headgate.simulator.generate import Choice, GeneratedAnswer
from headgate.simulator.streams import Times, named_event
from headgate.simulator.vllm_errors import to_json


class ResponsesWriter:
    """Writes one answer. `asked` holds the request's fields."""

    def __init__(
        self, answer: GeneratedAnswer, asked: Mapping[str, Any], max_output_tokens: int
    ) -> None:
        self._answer = answer
        self._asked = asked
        self._max_output_tokens = max_output_tokens
        self._choice: Choice = answer.choices[0]
        self._item_id = f"msg_{answer.id}"
        self._item_open = False
        self._next_number = 0

    def body(self, times: Times | None) -> bytes:
        """The answer that is not streamed."""
        told = {} if times is None else {"metrics": times}
        return to_json(self._final() | told).encode()

    def opening(self) -> list[bytes]:
        """created and in_progress, with usage null, at once."""
        initial = self._response("in_progress", [], None)
        names = ("response.created", "response.in_progress")
        return [self._event(name, {"response": initial}) for name in names]

    def step(self, position: int) -> list[bytes]:
        """A delta for each token; the item and its part are added before the first."""
        piece = self._choice.piece(position)
        if not piece:
            return []
        events = [] if self._item_open else self._open_item()
        number = self._number()
        delta = (
            f'{{"content_index":0,"delta":"{piece}","item_id":"{self._item_id}","logprobs":[],'
            f'"output_index":0,"sequence_number":{number},"type":"response.output_text.delta"}}'
        )
        return [*events, named_event("response.output_text.delta", delta)]

    def closing(self) -> list[bytes]:
        """The done events and `response.completed`, which 0.32 sends for an incomplete one too."""
        events = self._close_item() if self._item_open else []
        return [*events, self._event("response.completed", {"response": self._final()})]

    def broken(self) -> list[bytes] | None:
        """A dead engine cuts this stream."""
        return None

    def _open_item(self) -> list[bytes]:
        self._item_open = True
        part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        item = self._item("in_progress", [])
        return [
            self._event("response.output_item.added", {"item": item, "output_index": 0}),
            self._event("response.content_part.added", self._place() | {"part": part}),
        ]

    def _close_item(self) -> list[bytes]:
        done = {
            "content_index": 0,
            "item_id": self._item_id,
            "logprobs": [],
            "output_index": 0,
        }
        item = self._item("completed", [self._part()])
        return [
            self._event("response.output_text.done", done, {"text": self._choice.text}),
            self._event("response.content_part.done", self._place() | {"part": self._part()}),
            self._event("response.output_item.done", {"item": item, "output_index": 0}),
        ]

    def _event(
        self, name: str, members: dict[str, Any], after: dict[str, Any] | None = None
    ) -> bytes:
        numbered = members | {"sequence_number": self._number()} | (after or {})
        return named_event(name, to_json(numbered | {"type": name}))

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _place(self) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._item_id, "output_index": 0}

    def _part(self) -> dict[str, Any]:
        return {
            "annotations": [],
            "text": self._choice.text,
            "type": "output_text",
            "logprobs": None,
        }

    def _item(self, status: str, content: list[Any]) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "content": content,
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": None,
        }

    def _final(self) -> dict[str, Any]:
        status = "incomplete" if self._choice.finish_reason == "length" else "completed"
        output = [self._item("completed", [self._part()])] if self._choice.text else []
        return self._response(status, output, self._usage())

    def _response(
        self, status: str, output: list[Any], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        asked = self._asked
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self._answer.id}",
            "created_at": self._answer.created_s,
            "incomplete_details": incomplete,
            "instructions": asked.get("instructions"),
            "metadata": asked.get("metadata"),
            "model": self._answer.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "temperature": _given(asked, "temperature", 1.0),
            "tool_choice": _given(asked, "tool_choice", "auto"),
            "tools": _given(asked, "tools", []),
            "top_p": _given(asked, "top_p", 1.0),
            "background": False,
            "max_output_tokens": self._max_output_tokens,
            "max_tool_calls": asked.get("max_tool_calls"),
            "previous_response_id": None,
            "prompt": asked.get("prompt"),
            "reasoning": asked.get("reasoning"),
            "service_tier": _given(asked, "service_tier", "auto"),
            "status": status,
            "text": asked.get("text"),
            "top_logprobs": None,
            "truncation": _given(asked, "truncation", "disabled"),
            "usage": usage,
            "user": asked.get("user"),
            "presence_penalty": _given(asked, "presence_penalty", 0.0),
            "frequency_penalty": _given(asked, "frequency_penalty", 0.0),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def _usage(self) -> dict[str, Any]:
        prompt, output = self._choice.prompt_tokens, self._choice.tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {
                "cached_tokens": self._answer.cached_tokens[0],
                "cache_write_tokens": 0,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": output,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": prompt + output,
        }


def _given(asked: Mapping[str, Any], name: str, default: object) -> Any:
    value = asked.get(name)
    return default if value is None else value
