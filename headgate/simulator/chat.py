"""/v1/chat/completions: the answer and its stream, key by key as vLLM 0.32 writes them."""

from typing import Any

from headgate.simulator.choices import ChoiceWriter
from headgate.simulator.generate import Choice
from headgate.simulator.streams import data_event


class ChatWriter(ChoiceWriter):
    """Writes one answer of /v1/chat/completions."""

    ID_PREFIX = "chatcmpl"
    OBJECT = "chat.completion"
    CHUNK_OBJECT = "chat.completion.chunk"
    RUNNING = ',"logprobs":null,"finish_reason":null,"token_ids":null}]'
    LAST = ',"token_ids":null}]'
    RUNNING_DETAILS = ',"completion_tokens_details":null'

    def step(self, position: int) -> list[bytes]:
        """The events of one engine step: a token for each choice; the role before the first."""
        roles = []
        if position == 0:
            roles = [self._role(choice) for choice in self._running_choices(position)]
        return roles + super().step(position)

    def _role(self, choice: Choice) -> bytes:
        delta = f'{{"index":{choice.index},"delta":{{"role":"assistant","content":""}}'
        shown = self._running_usage(choice, 0)
        tail = f'{shown},"prompt_token_ids":null,"prompt_text":null}}'
        return data_event(
            f'{self._head},"choices":[{delta},"logprobs":null,"finish_reason":null}}]{tail}'
        )

    def _text(self, choice: Choice, position: int) -> str:
        return f'"delta":{{"content":"{choice.piece(position)}"}}'

    def _choice(self, choice: Choice) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": choice.text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        return {
            "index": choice.index,
            "message": message,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
            "token_ids": None,
            "routed_experts": None,
        }

    def _details(self) -> dict[str, Any] | None:
        if not self._answer.show_details:
            return None
        return self._final_details() | {"multimodal_tokens": None}

    def _final_details(self) -> dict[str, Any]:
        return {"cached_tokens": self._answer.cached_tokens[0], "created_cache_tokens": 0}

    def _more_members(self) -> dict[str, Any]:
        return {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
