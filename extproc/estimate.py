"""Estimates the tokens of a request at admission, as learned from settled usage.

Two numbers are learned for each (tenant, user, model): tokens per byte of text, and tokens of
output. Each is an exponentially weighted mean m with a mean deviation d, as TCP estimates its
round trip (RFC 6298). A new sample x has the weight 1/8 in m and 1/4 in d.

- d += (|x - m| - d) / 4; for the output only samples above m count, the others as 0
- m += (x - m) / 8
- upper = m + 2 d; for the output m + 4 d

Varied traffic keeps a wide margin, uniform traffic a narrow one. The estimate follows.

- text = bytes of text x ratio, where ratio is upper, but at most max(1/1.8, m), at least 1/4
- prompt = min(text + images x the policy's tokens for an image, context)
- output = n x (the requested maximum, else upper within the rest of the context and `output_cap`)
- tokens = prompt + output, at most 1e9

The ratio starts at 1/1.8: no real vocabulary needed more than bytes/1.8 tokens for any text that
was measured. None can need more than one token for each byte. A text of unknown size may fill the
context. A request with many prompts (embeddings, completions) has a context for each of them, so
only its size bounds the prompt.

The floor of 1/4 bounds what bad lessons can do. Reservations never exceed a limit, so the usage of
plain text exceeds it by at most (1/1.8) / (1/4), a factor of 2.2. English has about 4.5 bytes for
each token, so honest traffic seldom meets the floor.

Audio with a price per second (`audio_estimate`) is not learned.

- seconds = size / 4,000 bytes (32 kbit/s; a WAV file of 16 kHz has 8 times as many)
- prompt = seconds x price
- output of a stream = seconds x 10 tokens (fast speech has 5)
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Struct

from headgate.core.settlement import Estimate

START_TOKENS_PER_BYTE = 1 / 1.8
LEAST_TOKENS_PER_BYTE = 1 / 4
"""The floor of the learned ratio, whatever was learned."""
START_OUTPUT_TOKENS = 512
MAX_TOKENS = 1_000_000_000
"""Envoy's largest hits_addend. Above it Envoy silently drops the whole descriptor, and the request
passes unlimited."""

AUDIO_BYTES_PER_SECOND = 4_000
AUDIO_OUTPUT_PER_SECOND = 10

_MEAN_WEIGHT = 1 / 8
_DEVIATION_WEIGHT = 1 / 4
_RATIO_MARGIN = 2
_OUTPUT_MARGIN = 4
_PLAUSIBLE_TOKENS = 2**24
"""Above any context of today. A larger count is a broken record, and nothing is learned from it."""


class Subject(NamedTuple):
    """The user of a tenant whose requests to a model are alike, and teach about each other."""

    tenant: str
    user: str
    model: str


class PromptSize(Struct, frozen=True, gc=False):
    """The bytes of text of a prompt (None: not known), and the tokens of its images."""

    text_bytes: int | None
    image_tokens: int = 0


@dataclass(slots=True)
class _Tracked:
    mean: float
    deviation: float = 0.0

    def add(self, sample: float, *, upward: bool = False) -> None:
        """Adds a sample. With `upward`, a sample below the mean is no deviation."""
        error = sample - self.mean
        deviation = max(0.0, error) if upward else abs(error)
        self.deviation += (deviation - self.deviation) * _DEVIATION_WEIGHT
        self.mean += error * _MEAN_WEIGHT

    def upper(self, margin: int) -> float:
        return self.mean + margin * self.deviation


class _Learned:
    """The learned numbers of one subject."""

    __slots__ = ("output", "ratio")

    def __init__(self) -> None:
        self.ratio = _Tracked(START_TOKENS_PER_BYTE)
        self.output = _Tracked(START_OUTPUT_TOKENS)

    def tokens_per_byte(self) -> float:
        upper = min(self.ratio.upper(_RATIO_MARGIN), max(START_TOKENS_PER_BYTE, self.ratio.mean))
        return max(LEAST_TOKENS_PER_BYTE, upper)

    def output_tokens(self) -> int:
        return math.ceil(self.output.upper(_OUTPUT_MARGIN))


_UNTAUGHT = _Learned()
"""The numbers of a subject that has taught nothing yet."""


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
    """Estimates requests, and learns for the `max_entries` subjects seen last."""

    def __init__(self, max_entries: int = 50_000) -> None:
        self._max_entries = max_entries
        self._learned: OrderedDict[tuple[str, str, str], _Learned] = OrderedDict()

    def estimate(
        self,
        subject: Subject,
        prompt: PromptSize,
        *,
        max_tokens: int | None,
        n: int,
        context_tokens: int,
        many_prompts: bool = False,
        output_cap: int | None = None,
    ) -> Estimate:
        """The tokens to reserve for a request. The result is never 0.

        `max_tokens` bounds each of the `n` choices. If it is None, `output_cap` bounds what is held
        for all of them.
        """
        learned = self._learned.get(subject, _UNTAUGHT)
        held = _prompt_tokens(prompt, learned.tokens_per_byte(), context_tokens, many_prompts)
        if max_tokens is None:
            output = n * max(1, min(learned.output_tokens(), context_tokens - held))
            output = output if output_cap is None else min(output, output_cap)
        else:
            output = n * min(max_tokens, context_tokens)
        return Estimate(tokens=min(held + output, MAX_TOKENS), prompt=held)

    def learn(
        self,
        subject: tuple[str, str, str],
        text_bytes: int,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """Learns from the usage of one settled request, all its choices together.

        Impossible numbers are ignored. A prompt with images has a `text_bytes` of 0, and teaches
        nothing about text. A request without completion tokens (embeddings) teaches nothing about
        the length of outputs.
        """
        plausible = (
            text_bytes >= 0
            and 0 < prompt_tokens <= _PLAUSIBLE_TOKENS
            and 0 <= completion_tokens <= _PLAUSIBLE_TOKENS
        )
        if not plausible:
            return
        learned = self._entry(subject)
        if text_bytes:
            # More tokens than bytes: the prompt came from elsewhere (an earlier response). Less
            # than the floor: padding, which must not hide the next dense text.
            ratio = min(1.0, max(LEAST_TOKENS_PER_BYTE, prompt_tokens / text_bytes))
            learned.ratio.add(ratio)
        if completion_tokens:
            learned.output.add(completion_tokens, upward=True)

    def _entry(self, subject: tuple[str, str, str]) -> _Learned:
        """The subject's entry, moved to the end. The one that learned longest ago is dropped."""
        learned = self._learned.get(subject)
        if learned is None:
            learned = self._learned[subject] = _Learned()
        self._learned.move_to_end(subject)
        if len(self._learned) > self._max_entries:
            self._learned.popitem(last=False)
        return learned


def _prompt_tokens(
    prompt: PromptSize, tokens_per_byte: float, context_tokens: int, many_prompts: bool
) -> int:
    if prompt.text_bytes is None:
        return min(context_tokens, MAX_TOKENS)
    text = min(prompt.text_bytes, math.ceil(prompt.text_bytes * tokens_per_byte))
    tokens = text + prompt.image_tokens
    return max(1, min(tokens if many_prompts else min(tokens, context_tokens), MAX_TOKENS))
