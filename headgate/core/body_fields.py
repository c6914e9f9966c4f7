"""The fields of a request's body that a policy may refuse or bound, and the rules for them."""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

LIMITED_FIELDS = (
    "allowed_token_ids",
    "bad_words",
    "best_of",
    "documents",
    "echo",
    "functions",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "include",
    "logit_bias",
    "logprob_token_ids",
    "logprobs",
    "max_tool_calls",
    "min_tokens",
    "mm_processor_kwargs",
    "n",
    "output_config",
    "prompt_embeds",
    "prompt_logprobs",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "return_token_ids",
    "stop",
    "structured_outputs",
    "text",
    "thinking",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncate_prompt_tokens",
    "use_beam_search",
)
"""The body fields that a policy may limit. The list is closed, because the request reader in the
proxy carries it: a field that is not in it needs new EnvoyFilters."""

FieldRule: TypeAlias = Literal["allow", "refuse"] | int
"""What a policy says of a field. A number is the most that its value, or its members, may be."""
FieldRules: TypeAlias = Mapping[str, FieldRule]


def strictest(rules: Iterable[FieldRule]) -> FieldRule | None:
    """The rule that allows least; None of no rules."""
    return max(rules, key=_strictness, default=None)


def _strictness(rule: FieldRule) -> tuple[int, int]:
    if rule == "allow":
        return 0, 0
    return (2, 0) if rule == "refuse" else (1, -int(rule))
