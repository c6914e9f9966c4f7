"""/v1/completions: the answer and its stream, key by key as vLLM 0.32 writes them."""

from typing import Any

from headgate.simulator import usage
from headgate.simulator.generate import Answer, Sequence
from headgate.simulator.streams import DONE, data_event, error_events
from headgate.simulator.vllm_errors import to_json

_MIDDLE = ',"logprobs":null,"finish_reason":null,"stop_reason":null'
_TAIL = ',"prompt_token_ids":null,"token_ids":null}]'


class CompletionsWriter:
    """Writes one answer. `echo` holds the text of each prompt, or nothing."""

    def __init__(
        self, answer: Answer, fingerprint: str, echo: tuple[str, ...], *, only_echo: bool
    ) -> None:
        self._answer = answer
        self._fingerprint = fingerprint
        self._echo = echo
        self._only_echo = only_echo
        self._head = to_json(
            {
                "id": f"cmpl-{answer.id}",
                "object": "text_completion",
                "created": answer.created_s,
                "model": answer.model,
            }
        )[:-1]

    def body(self) -> bytes:
        """The answer that is not streamed. Unlike the chunks it keeps its null members."""
        answer = self._answer
        body = {
            "id": f"cmpl-{answer.id}",
            "object": "text_completion",
            "created": answer.created_s,
            "model": answer.model,
            "choices": [self._choice(sequence) for sequence in answer.sequences],
            "service_tier": None,
            "system_fingerprint": self._fingerprint,
            "usage": self._usage(),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return to_json(body).encode()

    def opening(self) -> list[bytes]:
        """Nothing comes before the first token."""
        return []

    def step(self, position: int) -> list[bytes]:
        """The events of one engine step: a token for each choice."""
        live = (one for one in self._answer.sequences if position < one.tokens)
        return [self._token(one, position) for one in live]

    def closing(self) -> list[bytes]:
        """The usage chunk, where it is asked for, and the end mark."""
        answer = self._answer
        if not answer.include_usage:
            return [DONE]
        final = usage.total(answer)
        if answer.show_details:
            final["prompt_tokens_details"] = {"cached_tokens": answer.cached_tokens[0]}
        tail = f'"usage":{to_json(final)},"system_fingerprint":{to_json(self._fingerprint)}}}'
        return [data_event(f'{self._head},"choices":[],{tail}'), DONE]

    def broken(self) -> list[bytes] | None:
        """How a stream ends when the engine dies."""
        return error_events()

    def _token(self, one: Sequence, position: int) -> bytes:
        piece = one.piece(position)
        text = to_json(self._text(one, piece, first=position == 0)) if self._echo else f'"{piece}"'
        shown = ""
        if self._answer.continuous_usage:
            shown = usage.running(one.prompt_tokens, position + 1)
        start = f'{self._head},"choices":[{{"index":{one.index},"text":{text}'
        if position < one.tokens - 1:
            return data_event(f"{start}{_MIDDLE}{_TAIL}{shown}}}")
        if not self._answer.include_usage:
            shown += f',"system_fingerprint":{to_json(self._fingerprint)}'
        end = f',"logprobs":null,"finish_reason":"{one.finish_reason}","stop_reason":null'
        return data_event(f"{start}{end}{_TAIL}{shown}}}")

    def _text(self, one: Sequence, generated: str, *, first: bool) -> str:
        prompt = self._echo[one.prompt] if self._echo and first else ""
        return prompt if self._only_echo else prompt + generated

    def _choice(self, one: Sequence) -> dict[str, Any]:
        return {
            "index": one.index,
            "text": self._text(one, one.text, first=True),
            "logprobs": None,
            "finish_reason": one.finish_reason,
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }

    def _usage(self) -> dict[str, Any]:
        """Here the cached tokens are the last prompt's, in a stream the first one's."""
        details = None
        if self._answer.show_details:
            details = {
                "cached_tokens": self._answer.cached_tokens[-1],
                "created_cache_tokens": None,
                "multimodal_tokens": None,
            }
        more = {"prompt_tokens_details": details, "completion_tokens_details": None}
        return usage.total(self._answer) | more
