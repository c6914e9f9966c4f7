"""/v1/completions: the answer and its stream, key by key as vLLM 0.32 writes them."""

from typing import Any

from headgate.simulator.choices import ChoiceWriter
from headgate.simulator.generate import Choice, GeneratedAnswer
from headgate.simulator.vllm_errors import to_json

_TAIL = ',"prompt_token_ids":null,"token_ids":null}]'


class CompletionsWriter(ChoiceWriter):
    """Writes one answer of /v1/completions.

    `echo` holds the text of each prompt, or nothing. With `only_echo` no output follows it.
    """

    ID_PREFIX = "cmpl"
    OBJECT = CHUNK_OBJECT = "text_completion"
    RUNNING = ',"logprobs":null,"finish_reason":null,"stop_reason":null' + _TAIL
    LAST = _TAIL

    def __init__(
        self, answer: GeneratedAnswer, fingerprint: str, echo: tuple[str, ...], *, only_echo: bool
    ) -> None:
        super().__init__(answer, fingerprint)
        self._echo = echo
        self._only_echo = only_echo

    def _text(self, choice: Choice, position: int) -> str:
        piece = choice.piece(position)
        if not self._echo:
            return f'"text":"{piece}"'
        return f'"text":{to_json(self._with_echo(choice, piece, first=position == 0))}'

    def _with_echo(self, choice: Choice, generated: str, *, first: bool) -> str:
        prompt = self._echo[choice.prompt] if self._echo and first else ""
        return prompt if self._only_echo else prompt + generated

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": self._with_echo(choice, choice.text, first=True),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }

    def _details(self) -> dict[str, Any] | None:
        """The cached tokens are the last prompt's here, and in a stream the first one's."""
        if not self._answer.show_details:
            return None
        return {
            "cached_tokens": self._answer.cached_tokens[-1],
            "created_cache_tokens": None,
            "multimodal_tokens": None,
        }

    def _final_details(self) -> dict[str, Any]:
        return {"cached_tokens": self._answer.cached_tokens[0]}
