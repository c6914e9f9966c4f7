"""The service curve of a model on a GPU: how long a pod takes, by its load."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCurve:
    """A pod of one model, as vLLM behaves: prompts share the engine, and each sequence in the batch
    makes each step longer."""

    gpu: str
    """The kind of GPU, as its price is named."""
    gpus: int
    """The GPUs of one pod."""
    first_token_s: float
    """Seconds to the first token of an empty prompt in an idle pod."""
    prefill_tokens_per_s: float
    """Uncached prompt tokens that a pod computes in a second."""
    token_interval_s: float
    """Seconds from token to token for a sequence alone."""
    slowdown_s: float
    """Seconds that each sequence in the batch adds to each step."""
    max_num_seqs: int
    """Sequences in the batch (`--max-num-seqs`); a further one waits."""
    source: str
    """Where the figures come from, for the report."""

    def interval_s(self, running: int) -> float:
        """Seconds from token to token with `running` sequences in the batch."""
        return self.token_interval_s + self.slowdown_s * running
