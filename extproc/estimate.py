"""Estimates the tokens of a request at admission, as learned from settled usage.

Two numbers are learned for each (tenant, model): tokens per byte of request body, and tokens of
output. Each is an exponentially weighted mean m with a mean deviation d, as TCP estimates its
round trip (RFC 6298). A new sample x has the weight 1/8 in m and 1/4 in d.

- d += (|x - m| - d) / 4
- m += (x - m) / 8
- upper = m + 2 d

Varied traffic keeps a wide margin, uniform traffic a narrow one. The estimate follows.

- prompt = min(size, context, size x ratio), where ratio is upper, but at most max(1/1.8, m)
- output = n x (the requested maximum, else upper within the rest of the context)
- tokens = prompt + output, at most 1e9

The ratio starts at 1/1.8: no real vocabulary needed more than bytes/1.8 tokens for any text that
was measured. None can need more than one token for each byte. A body of unknown size may fill the
context. A request with many prompts (embeddings, completions) has a context for each of them, so
only its size bounds the prompt.

Audio with a price per second (`audio_estimate`) is not learned.

- seconds = size / 4,000 bytes (32 kbit/s; a WAV file of 16 kHz has 8 times as many)
- prompt = seconds x price
- output of a stream = seconds x 10 tokens (fast speech has 5)
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

from headgate.core.settlement import Estimate

START_TOKENS_PER_BYTE = 1 / 1.8
START_OUTPUT_TOKENS = 512
MAX_TOKENS = 1_000_000_000
"""Envoy's largest hits_addend. Above it Envoy silently drops the whole descriptor, and the request
passes unlimited."""

AUDIO_BYTES_PER_SECOND = 4_000
AUDIO_OUTPUT_PER_SECOND = 10

_MEAN_WEIGHT = 1 / 8
_DEVIATION_WEIGHT = 1 / 4
_MARGIN_DEVIATIONS = 2
_PLAUSIBLE_TOKENS = 2**24
"""Above any context of today. A larger count is a broken record, and nothing is learned from it."""


@dataclass(slots=True)
class _Tracked:
    mean: float
    deviation: float = 0.0

    def add(self, sample: float) -> None:
        error = sample - self.mean
        self.deviation += (abs(error) - self.deviation) * _DEVIATION_WEIGHT
        self.mean += error * _MEAN_WEIGHT

    @property
    def upper(self) -> float:
        return self.mean + _MARGIN_DEVIATIONS * self.deviation


class _Learned:
    """The learned numbers of one tenant's requests to one model."""

    __slots__ = ("output", "ratio")

    def __init__(self) -> None:
        self.ratio = _Tracked(START_TOKENS_PER_BYTE)
        self.output = _Tracked(START_OUTPUT_TOKENS)

    def tokens_per_byte(self) -> float:
        return min(self.ratio.upper, max(START_TOKENS_PER_BYTE, self.ratio.mean))


def audio_estimate(
    size_bytes: int | None, tokens_per_second: int, *, stream: bool, context_tokens: int
) -> Estimate:
    """The tokens to reserve for a recording that is priced by the second.

    `size_bytes` is the size of its form, None if it is not known. Only the output of a stream is
    charged.
    """
    if size_bytes is None:
        prompt = output = context_tokens
    else:
        seconds = max(1, -(-size_bytes // AUDIO_BYTES_PER_SECOND))
        prompt, output = seconds * tokens_per_second, seconds * AUDIO_OUTPUT_PER_SECOND
    prompt = min(prompt, MAX_TOKENS)
    tokens = min(prompt + (output if stream else 0), MAX_TOKENS)
    return Estimate(tokens, prompt, tokens_per_second)


class Estimator:
    """Estimates requests, and learns for the `max_entries` pairs of tenant and model seen last."""

    def __init__(self, max_entries: int = 10_000) -> None:
        self._max_entries = max_entries
        self._learned: OrderedDict[tuple[str, str], _Learned] = OrderedDict()

    def estimate(
        self,
        tenant: str,
        model: str,
        size_bytes: int | None,
        *,
        max_tokens: int | None,
        n: int,
        context_tokens: int,
        many_prompts: bool = False,
    ) -> Estimate:
        """The tokens to reserve for a request with a body of `size_bytes` (None: not known).

        `max_tokens` bounds each of the `n` choices (None: not given). The result is never 0.
        """
        learned = self._learned.get((tenant, model)) or _Learned()
        prompt = context_tokens
        if size_bytes is not None:
            prompt = min(size_bytes, math.ceil(size_bytes * learned.tokens_per_byte()))
            prompt = prompt if many_prompts else min(prompt, context_tokens)
        prompt = max(1, min(prompt, MAX_TOKENS))
        if max_tokens is None:
            output = max(1, min(math.ceil(learned.output.upper), context_tokens - prompt))
        else:
            output = min(max_tokens, context_tokens)
        return Estimate(tokens=min(prompt + n * output, MAX_TOKENS), prompt=prompt)

    def learn(
        self, tenant: str, model: str, size_bytes: int, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Learns from the usage of one settled request, all its choices together.

        Impossible numbers are ignored. A request without completion tokens (embeddings) teaches
        nothing about the length of outputs.
        """
        plausible = (
            size_bytes > 0
            and 0 < prompt_tokens <= _PLAUSIBLE_TOKENS
            and 0 <= completion_tokens <= _PLAUSIBLE_TOKENS
        )
        if not plausible:
            return
        learned = self._entry(tenant, model)
        # More tokens than bytes: the prompt came from elsewhere (image URL, earlier response).
        learned.ratio.add(min(1.0, prompt_tokens / size_bytes))
        if completion_tokens:
            learned.output.add(completion_tokens)

    def _entry(self, tenant: str, model: str) -> _Learned:
        """The pair's entry, moved to the end. The entry that learned longest ago is dropped."""
        key = (tenant, model)
        learned = self._learned.setdefault(key, _Learned())
        self._learned.move_to_end(key)
        if len(self._learned) > self._max_entries:
            self._learned.popitem(last=False)
        return learned
