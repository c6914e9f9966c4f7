"""The seconds that vLLM spent on prompts and on answers, and the weights of tokens by them."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from headgate.core.prometheus_api import prometheus_at
from headgate.ledger.engine_counters import TIMEOUT_S, grown

_DIGITS = Decimal("0.001")
_COUNTERS = {
    "prefill_s": "vllm:request_prefill_time_seconds_sum",
    "decode_s": "vllm:request_decode_time_seconds_sum",
    "prompt": "vllm:prompt_tokens_total",
    "cached": "vllm:prefix_cache_hits_total",
    "output": "vllm:generation_tokens_total",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeconds:
    """The work of vLLM's pods in a span: seconds of requests, and tokens.

    `prompt` has the `cached` tokens in it, on which vLLM spent nothing.
    """

    prefill_s: float
    decode_s: float
    prompt: int
    cached: int
    output: int

    @property
    def output_weight(self) -> Decimal | None:
        """The seconds of a token of output over those of an uncached one of a prompt.

        It has three decimals, the most that the policy file takes. None if either is not known.
        """
        uncached = self.prompt - self.cached
        if min(uncached, self.output) <= 0 or self.prefill_s <= 0 or self.decode_s <= 0:
            return None
        of_input, of_output = self.prefill_s / uncached, self.decode_s / self.output
        return Decimal(of_output / of_input).quantize(_DIGITS)


async def read_seconds(url: str, model: str, begin: datetime, end: datetime) -> EngineSeconds:
    """The sums over all pods of a base model, by its name in vLLM. Raises OperatorError."""
    selectors = {name: f'{counter}{{model_name="{model}"}}' for name, counter in _COUNTERS.items()}
    async with prometheus_at(url, TIMEOUT_S) as prometheus:
        sums = {
            name: sum(growth for _, growth in await grown(prometheus, selector, begin, end))
            for name, selector in selectors.items()
        }
    return EngineSeconds(
        prefill_s=sums["prefill_s"],
        decode_s=sums["decode_s"],
        prompt=round(sums["prompt"]),
        cached=round(sums["cached"]),
        output=round(sums["output"]),
    )
