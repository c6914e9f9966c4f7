"""The settings of a simulated server: its names, its speed, its switches."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of one simulator; each names the `vllm serve` flag that it replaces."""

    models: tuple[str, ...] = ("tiny",)
    """`--served-model-name`: the base model's names; answers carry the first one."""
    adapters: tuple[str, ...] = ()
    """`--lora-modules`: adapters that are there from the start."""
    max_model_len: int = 8192
    """`--max-model-len`: prompt and output tokens together."""
    default_output_tokens: int = 64
    """The model stops by itself after this number of tokens where a request gives no maximum."""
    ttft_s: float = 0.05
    """Seconds from a request to its first token."""
    token_interval_s: float = 0.02
    """Seconds from one token to the next."""
    max_num_seqs: int | None = None
    """`--max-num-seqs`: sequences in the batch; a further one waits. None: there is no bound."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    """`--scheduling-policy`: with `priority` the header X-Vllm-Priority orders the queue."""
    prefill_tokens_per_s: float | None = None
    """Prompt tokens outside the prefix cache that the engine computes in a second, one prompt after
    the other. None: a prompt costs nothing beyond `ttft_s`."""
    slowdown_s: float = 0.0
    """Seconds that each sequence in the batch adds to `token_interval_s`."""
    force_usage: bool = False
    """`--enable-force-include-usage`: running usage in every chat and completions stream."""
    prompt_tokens_details: bool = False
    """`--enable-prompt-tokens-details`: cached tokens in the usage."""
    per_request_metrics: bool = False
    """`--enable-per-request-metrics`: the answer's own times in a whole answer."""

    keep_alive_s: int = 5
    """`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`: seconds after which an idle connection is closed."""

    def __post_init__(self) -> None:
        """Refuses a server without a name: ValueError."""
        if not self.models or not all(self.models):
            raise ValueError("a simulator needs at least one model name, and none may be empty")
        if self.max_num_seqs is not None and self.max_num_seqs < 1:
            raise ValueError("max_num_seqs is 1 or more")
        if self.prefill_tokens_per_s is not None and self.prefill_tokens_per_s <= 0:
            raise ValueError("prefill_tokens_per_s is more than 0")
