"""Plans an answer: how many tokens, which words, why it ends. Pure and always the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]

PIECES = (
    *(" the", " quick", " answer", " is", " that", " every", " token", " has", " a", " price"),
    *(" and", " someone", " counts", " it", " before", " the", " stream", " ends", " so", " we"),
    *(" keep", " the", " ledger", " while", " the", " café", " stays", " open", " and", " 世界"),
    *(" listens", " to", " each", " word", " once"),
)
"""The texts of tokens. None needs an escape in JSON, so that a chunk is a template and a piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One choice of an answer: `tokens` tokens after a prompt of `prompt_tokens`."""

    index: int
    prompt: int
    """Which of the request's prompts it continues."""
    prompt_tokens: int
    tokens: int
    finish_reason: FinishReason

    def piece(self, position: int) -> str:
        """The text of the token at `position`; a model that stops does so with an empty one."""
        if self.finish_reason == "stop" and position == self.tokens - 1:
            return ""
        return PIECES[(self.index * 7 + position) % len(PIECES)]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.piece(position) for position in range(self.tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedAnswer:
    """Everything that a writer needs to know about an answer."""

    id: str
    """The answer's id without its prefix: random, or the client's X-Request-Id."""
    created_s: int
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: tuple[int, ...]
    """Tokens of each prompt."""
    cached_tokens: tuple[int, ...]
    """Of these, tokens found in the prefix cache."""
    include_usage: bool
    continuous_usage: bool
    show_details: bool
    """`--enable-prompt-tokens-details`."""
    show_times: bool
    """`--enable-per-request-metrics`."""

    @property
    def total_prompt_tokens(self) -> int:
        """Each prompt once, however many choices it has."""
        return sum(self.prompt_tokens)

    @property
    def total_tokens_out(self) -> int:
        """Generated tokens of all choices."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def steps(self) -> int:
        """Engine steps until the longest choice is done."""
        return max(choice.tokens for choice in self.choices)


def plan(
    prompt_tokens: Sequence[int],
    n: int,
    *,
    max_tokens: int | None,
    natural_tokens: int | None,
    context: int,
    default_tokens: int,
) -> tuple[Choice, ...]:
    """The choices of one request: `n` for each prompt.

    A maximum beyond the context's end is clamped in silence, as vLLM does. The model stops by
    itself after `natural_tokens`. If that is None, it stops at the maximum, or after
    `default_tokens` where there is no maximum either.
    """
    choices = []
    for prompt, tokens_in in enumerate(prompt_tokens):
        room = context - tokens_in
        limit = room if max_tokens is None else min(max_tokens, room)
        natural = natural_tokens
        if natural is None:
            natural = default_tokens if max_tokens is None else limit
        reason: FinishReason = "length" if natural >= limit else "stop"
        for number in range(n):
            choices.append(
                Choice(
                    index=prompt * n + number,
                    prompt=prompt,
                    prompt_tokens=tokens_in,
                    tokens=min(natural, limit),
                    finish_reason=reason,
                )
            )
    return tuple(choices)
