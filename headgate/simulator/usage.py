"""Token usage in the shapes of chat and completions."""

from typing import Any

from headgate.simulator.generate import GeneratedAnswer


def counts(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """The three numbers, in vLLM's order."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def running(prompt_tokens: int, completion_tokens: int, more: str = "") -> str:
    """The member of a chunk under continuous_usage_stats: the numbers of that choice alone."""
    return (
        f',"usage":{{"prompt_tokens":{prompt_tokens},'
        f'"total_tokens":{prompt_tokens + completion_tokens},'
        f'"completion_tokens":{completion_tokens}{more}}}'
    )


def total(answer: GeneratedAnswer) -> dict[str, Any]:
    """The whole answer: each prompt once, the output of all choices."""
    return counts(answer.total_prompt_tokens, answer.total_tokens_out)
