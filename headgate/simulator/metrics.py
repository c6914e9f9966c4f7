"""The engine's counts: plain arithmetic, done for every token. `exposition.py` shows them.

A request with n choices is n engine requests to vLLM. So its prompt, its time to first token and
its success count n times (vLLM 0.32 `v1/engine/async_llm.py`, `v1/metrics/stats.py`). `usage`
counts the prompt once. A client that leaves is not counted as finished, but its tokens are.
"""

from bisect import bisect_left
from collections import Counter, OrderedDict

from headgate.core.clock import Clock
from headgate.simulator.generate import Choice

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
_LORA_LABEL_SETS = 100
_LATENCY_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_LENGTH_BUCKETS = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0),
    *(10000.0, 20000.0, 50000.0, 100000.0),
)
_GAP_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0, 20.0, 40.0, 80.0),
)


class Histogram:
    """Observations by bucket; `counts` has one more entry than `bounds`, for those above all."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int) -> None:
        """Counts `value` `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Run:
    """One request in the engine, from `EngineMetrics.start` to `EngineMetrics.end`."""

    __slots__ = (
        *("adapter", "arrived_s", "cached_tokens", "choices", "first_s", "generated", "last_s"),
        "started_s",
    )

    def __init__(
        self,
        choices: tuple[Choice, ...],
        cached_tokens: int,
        adapter: str | None,
        arrived_s: float,
        started_s: float,
    ) -> None:
        self.choices = choices
        self.cached_tokens = cached_tokens
        self.adapter = adapter
        self.arrived_s = arrived_s
        self.started_s = started_s
        self.first_s = started_s
        self.last_s = started_s
        self.generated = 0

    @property
    def prompt_tokens(self) -> int:
        """The prompts' tokens, once for each choice."""
        return sum(choice.prompt_tokens for choice in self.choices)

    def times_ms(self) -> dict[str, float | None]:
        """The times of a whole answer, as vLLM tells them; without its queue in the first."""
        decode_s, inference_s = self.last_s - self.first_s, self.last_s - self.started_s
        gaps = self.generated - 1
        return {
            "time_to_first_token_ms": (self.first_s - self.started_s) * 1000,
            "generation_time_ms": decode_s * 1000,
            "queue_time_ms": (self.started_s - self.arrived_s) * 1000,
            "mean_itl_ms": decode_s / gaps * 1000 if gaps else None,
            "tokens_per_second": self.generated / inference_s if inference_s else None,
        }


class EngineMetrics:
    """All counts of one server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.running: set[Run] = set()
        self.waiting = 0
        """Requests that `headers_delay` holds back; those in the queue are the scheduler's."""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.first_token_s = Histogram(_FIRST_TOKEN_BUCKETS)
        self.gap_s = Histogram(_GAP_BUCKETS)
        self.request_s = Histogram(_LATENCY_BUCKETS)
        self.queue_s = Histogram(_LATENCY_BUCKETS)
        self.prefill_s = Histogram(_LATENCY_BUCKETS)
        self.decode_s = Histogram(_LATENCY_BUCKETS)
        self.prompt_lengths = Histogram(_LENGTH_BUCKETS)
        self.generated_lengths = Histogram(_LENGTH_BUCKETS)
        self.lora_seen: OrderedDict[str, float] = OrderedDict()
        """Sets of adapters that ran together (comma list), each with the Unix time it was last
        seen; vLLM keeps them all, here the latest stay."""
        self._adapters: Counter[str] = Counter()

    def start(
        self,
        choices: tuple[Choice, ...],
        cached_tokens: int,
        adapter: str | None,
        arrived_s: float | None = None,
    ) -> Run:
        """A request enters the batch; `cached_tokens` of its prompts need no prefill.

        It may have `arrived_s` earlier, by the monotonic clock, and waited in the queue.
        """
        now_s = self._clock.monotonic_s()
        arrived_s = now_s if arrived_s is None else arrived_s
        run = Run(choices, cached_tokens, adapter, arrived_s, now_s)
        self.queue_s.observe(now_s - arrived_s, len(choices))
        self.running.add(run)
        if adapter is not None:
            self._adapters[adapter] += 1
            self._note_adapters()
        return run

    def step(self, run: Run, live: int) -> None:
        """`live` choices of the request got a token; the first step is the prefill's end."""
        now_s = self._clock.monotonic_s()
        if run.generated:
            self.gap_s.observe(now_s - run.last_s, live)
        else:
            self.prompt_tokens += run.prompt_tokens
            self.cached_tokens += run.cached_tokens
            self.first_token_s.observe(now_s - run.arrived_s, live)
            self.prefill_s.observe(now_s - run.started_s, live)
            run.first_s = now_s
        run.last_s = now_s
        run.generated += live
        self.generated_tokens += live

    def finish(self, run: Run, *, failed: bool = False) -> None:
        """The request ended in the engine, by its own end or by the engine's failure."""
        now_s = self._clock.monotonic_s()
        for choice in run.choices:
            self.finished["error" if failed else choice.finish_reason] += 1
            self.prompt_lengths.observe(choice.prompt_tokens, 1)
            self.generated_lengths.observe(choice.tokens, 1)
        self.request_s.observe(now_s - run.arrived_s, len(run.choices))
        self.decode_s.observe(now_s - run.first_s, len(run.choices))

    def end(self, run: Run) -> None:
        """The request leaves the engine, finished or not."""
        self.running.discard(run)
        if run.adapter is not None:
            self._adapters[run.adapter] -= 1
            if not self._adapters[run.adapter]:
                del self._adapters[run.adapter]
            self._note_adapters()

    def _note_adapters(self) -> None:
        names = ",".join(sorted(self._adapters))
        self.lora_seen[names] = self._clock.now_s()
        self.lora_seen.move_to_end(names)
        if len(self.lora_seen) > _LORA_LABEL_SETS:
            self.lora_seen.popitem(last=False)
