"""The /metrics page under vLLM's names, from the engine's counts.

`model_name` is always the base model's first name, never the adapter's.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from headgate.simulator.metrics import EngineMetrics, Histogram
from headgate.simulator.scheduler import Scheduler

_KV_CACHE_TOKENS = 1_000_000
_LABELS = ("model_name", "engine")
_LORA_LABELS = ("max_lora", "waiting_lora_adapters", "running_lora_adapters")
_MAX_LORAS = "8"


class Exposition(Collector):
    """Shows the counts of one server."""

    def __init__(self, model: str, metrics: EngineMetrics, scheduler: Scheduler) -> None:
        self._labels = (model, "0")
        self._metrics = metrics
        self._scheduler = scheduler
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        """The page, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The families, as prometheus_client asks for them."""
        yield from self._gauges()
        yield from self._counters()
        metrics = self._metrics
        histograms = {
            "time_to_first_token_seconds": metrics.first_token_s,
            "inter_token_latency_seconds": metrics.gap_s,
            "e2e_request_latency_seconds": metrics.request_s,
            "request_queue_time_seconds": metrics.queue_s,
            "request_prefill_time_seconds": metrics.prefill_s,
            "request_decode_time_seconds": metrics.decode_s,
            "request_prompt_tokens": metrics.prompt_lengths,
            "request_generation_tokens": metrics.generated_lengths,
        }
        for name, histogram in histograms.items():
            yield self._histogram(name, histogram)
        yield self._lora_info()

    def _gauges(self) -> Iterator[Metric]:
        runs = self._metrics.running
        held_tokens = sum(run.prompt_tokens + run.generated for run in runs)
        values = {
            "num_requests_running": sum(len(run.choices) for run in runs),
            "num_requests_waiting": self._metrics.waiting + self._scheduler.waiting,
            "kv_cache_usage_perc": min(held_tokens / _KV_CACHE_TOKENS, 1.0),
        }
        for name, value in values.items():
            gauge = GaugeMetricFamily(f"vllm:{name}", _help(name), labels=_LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge

    def _counters(self) -> Iterator[Metric]:
        metrics = self._metrics
        values = {
            "prompt_tokens": metrics.prompt_tokens,
            "generation_tokens": metrics.generated_tokens,
            "prefix_cache_queries": metrics.prompt_tokens,
            "prefix_cache_hits": metrics.cached_tokens,
            "num_preemptions": 0,  # its KV cache is never full
        }
        for name, value in values.items():
            counter = CounterMetricFamily(f"vllm:{name}", _help(name), labels=_LABELS)
            counter.add_metric(self._labels, value)
            yield counter
        name = "request_success"
        labels = (*_LABELS, "finished_reason")
        success = CounterMetricFamily(f"vllm:{name}", _help(name), labels=labels)
        for reason, count in metrics.finished.items():
            success.add_metric((*self._labels, reason), count)
        yield success

    def _histogram(self, name: str, histogram: Histogram) -> Metric:
        buckets, below = [], 0
        bounds = [*map(str, histogram.bounds), "+Inf"]
        for bound, count in zip(bounds, histogram.counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        family = HistogramMetricFamily(f"vllm:{name}", _help(name), labels=_LABELS)
        family.add_metric(self._labels, buckets, histogram.sum)
        return family

    def _lora_info(self) -> Metric:
        name = "lora_requests_info"
        info = GaugeMetricFamily(f"vllm:{name}", _help(name), labels=_LORA_LABELS)
        for running, seen_s in self._metrics.lora_seen.items():
            info.add_metric((_MAX_LORAS, "", running), seen_s)
        return info


def _help(name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()}, simulated."
