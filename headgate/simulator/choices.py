"""The answers of chat and completions have choices: this writes all that the two share."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from headgate.simulator import usage
from headgate.simulator.generate import Choice, GeneratedAnswer
from headgate.simulator.streams import DONE, Times, data_event, error_events
from headgate.simulator.vllm_errors import to_json


class ChoiceWriter(ABC):
    """Writes one answer. Each API adds its own members of an answer, a choice and a chunk."""

    ID_PREFIX: ClassVar[str]
    OBJECT: ClassVar[str]
    """The `object` of an answer that is not streamed."""
    CHUNK_OBJECT: ClassVar[str]
    RUNNING: ClassVar[str]
    """How the choice of a chunk goes on after the text, while tokens follow."""
    LAST: ClassVar[str]
    """How the choice of the last chunk ends, after its finish reason."""
    RUNNING_DETAILS: ClassVar[str] = ""
    """More members of the running usage."""

    def __init__(self, answer: GeneratedAnswer, fingerprint: str) -> None:
        self._answer = answer
        self._fingerprint = fingerprint
        self._head = to_json(self._members(self.CHUNK_OBJECT))[:-1]

    def body(self, times: Times | None) -> bytes:
        """The answer that is not streamed. Unlike the chunks it keeps its null members."""
        members = self._members(self.OBJECT) | {
            "choices": [self._choice(choice) for choice in self._answer.choices],
            "service_tier": None,
            "system_fingerprint": self._fingerprint,
            "usage": usage.total(self._answer)
            | {"prompt_tokens_details": self._details(), "completion_tokens_details": None},
        }
        tail = {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": times}
        return to_json(members | self._more_members() | tail).encode()

    def opening(self) -> list[bytes]:
        """Nothing comes before the first token."""
        return []

    def step(self, position: int) -> list[bytes]:
        """The events of one engine step: a token for each choice that still runs."""
        return [self._token(choice, position) for choice in self._running_choices(position)]

    def closing(self) -> list[bytes]:
        """The usage chunk, where it is asked for, and the end mark."""
        if not self._answer.include_usage:
            return [DONE]
        final = usage.total(self._answer)
        if self._answer.show_details:
            final["prompt_tokens_details"] = self._final_details()
        tail = f'"usage":{to_json(final)},"system_fingerprint":{to_json(self._fingerprint)}}}'
        return [data_event(f'{self._head},"choices":[],{tail}'), DONE]

    def broken(self) -> list[bytes] | None:
        """How a stream ends when the engine dies."""
        return error_events()

    @abstractmethod
    def _choice(self, choice: Choice) -> dict[str, Any]:
        """A choice of an answer that is not streamed."""

    @abstractmethod
    def _text(self, choice: Choice, position: int) -> str:
        """The JSON member that carries the text of one token."""

    @abstractmethod
    def _details(self) -> dict[str, Any] | None:
        """The prompt's details in the usage of an answer that is not streamed."""

    @abstractmethod
    def _final_details(self) -> dict[str, Any]:
        """The prompt's details in the usage chunk."""

    def _more_members(self) -> dict[str, Any]:
        """Members that come after the usage of an answer that is not streamed."""
        return {}

    def _members(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self.ID_PREFIX}-{self._answer.id}",
            "object": kind,
            "created": self._answer.created_s,
            "model": self._answer.model,
        }

    def _running_choices(self, position: int) -> list[Choice]:
        return [choice for choice in self._answer.choices if position < choice.tokens]

    def _token(self, choice: Choice, position: int) -> bytes:
        shown = self._running_usage(choice, position + 1)
        text = self._text(choice, position)
        start = f'{self._head},"choices":[{{"index":{choice.index},{text}'
        if position < choice.tokens - 1:
            return data_event(f"{start}{self.RUNNING}{shown}}}")
        if not self._answer.include_usage:
            shown += f',"system_fingerprint":{to_json(self._fingerprint)}'
        end = f',"logprobs":null,"finish_reason":"{choice.finish_reason}","stop_reason":null'
        return data_event(f"{start}{end}{self.LAST}{shown}}}")

    def _running_usage(self, choice: Choice, tokens: int) -> str:
        if not self._answer.continuous_usage:
            return ""
        return usage.running(choice.prompt_tokens, tokens, self.RUNNING_DETAILS)
