"""/v1/chat/completions: the answer and its stream, key by key as vLLM 0.32 writes them."""

from typing import Any

from headgate.simulator import usage
from headgate.simulator.generate import Answer, Sequence
from headgate.simulator.streams import DONE, data_event, error_events
from headgate.simulator.vllm_errors import to_json

_NO_DETAILS = ',"completion_tokens_details":null'
_CHUNK_TAIL = ',"logprobs":null,"finish_reason":null,"token_ids":null}]'


class ChatWriter:
    """Writes one answer."""

    def __init__(self, answer: Answer, fingerprint: str) -> None:
        self._answer = answer
        self._fingerprint = fingerprint
        self._head = to_json(
            {
                "id": f"chatcmpl-{answer.id}",
                "object": "chat.completion.chunk",
                "created": answer.created_s,
                "model": answer.model,
            }
        )[:-1]

    def body(self) -> bytes:
        """The answer that is not streamed. Unlike the chunks it keeps its null members."""
        answer = self._answer
        body = {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion",
            "created": answer.created_s,
            "model": answer.model,
            "choices": [_choice(sequence) for sequence in answer.sequences],
            "service_tier": None,
            "system_fingerprint": self._fingerprint,
            "usage": self._usage(),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return to_json(body).encode()

    def opening(self) -> list[bytes]:
        """Nothing comes before the first token."""
        return []

    def step(self, position: int) -> list[bytes]:
        """The events of one engine step: a token for each choice; the role before the first."""
        live = [one for one in self._answer.sequences if position < one.tokens]
        roles = [self._role(one) for one in live] if position == 0 else []
        return roles + [self._token(one, position) for one in live]

    def closing(self) -> list[bytes]:
        """The usage chunk, where it is asked for, and the end mark."""
        if not self._answer.include_usage:
            return [DONE]
        usage_json = to_json(self._final_usage())
        fingerprint = to_json(self._fingerprint)
        tail = f',"choices":[],"usage":{usage_json},"system_fingerprint":{fingerprint}}}'
        return [data_event(self._head + tail), DONE]

    def broken(self) -> list[bytes] | None:
        """How a stream ends when the engine dies."""
        return error_events()

    def _role(self, one: Sequence) -> bytes:
        choice = f'{{"index":{one.index},"delta":{{"role":"assistant","content":""}}'
        shown = self._running(one, 0)
        tail = f'{shown},"prompt_token_ids":null,"prompt_text":null}}'
        return data_event(
            f'{self._head},"choices":[{choice},"logprobs":null,"finish_reason":null}}]{tail}'
        )

    def _token(self, one: Sequence, position: int) -> bytes:
        delta = f'{{"index":{one.index},"delta":{{"content":"{one.piece(position)}"}}'
        shown = self._running(one, position + 1)
        if position < one.tokens - 1:
            return data_event(f'{self._head},"choices":[{delta}{_CHUNK_TAIL}{shown}}}')
        if not self._answer.include_usage:
            shown += f',"system_fingerprint":{to_json(self._fingerprint)}'
        end = f',"logprobs":null,"finish_reason":"{one.finish_reason}","stop_reason":null'
        return data_event(f'{self._head},"choices":[{delta}{end},"token_ids":null}}]{shown}}}')

    def _running(self, one: Sequence, tokens: int) -> str:
        if not self._answer.continuous_usage:
            return ""
        return usage.running(one.prompt_tokens, tokens, _NO_DETAILS)

    def _usage(self) -> dict[str, Any]:
        details = None
        if self._answer.show_details:
            details = self._details() | {"multimodal_tokens": None}
        more = {"prompt_tokens_details": details, "completion_tokens_details": None}
        return usage.total(self._answer) | more

    def _final_usage(self) -> dict[str, Any]:
        details = {"prompt_tokens_details": self._details()} if self._answer.show_details else {}
        return usage.total(self._answer) | details

    def _details(self) -> dict[str, Any]:
        return {"cached_tokens": self._answer.cached_tokens[0], "created_cache_tokens": 0}


def _choice(one: Sequence) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": one.text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    return {
        "index": one.index,
        "message": message,
        "logprobs": None,
        "finish_reason": one.finish_reason,
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }
