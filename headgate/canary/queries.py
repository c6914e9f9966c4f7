"""The PromQL of a canary, in one place.

`headgate canary status` asks it. A test holds the gates of Flagger and Argo Rollouts in
istio/components to the same text.

Names are vLLM's (`vllm:`, label `model_name`) and Istio's. A label tells the parts of a model
apart. It is `version`, the pods' label, which Istio calls `destination_version`. Or it is
`workload`, which Istio calls `destination_workload`: Flagger's two Deployments share one version.
vLLM's own metrics carry neither, so the PodMonitor of istio/components/monitoring adds both.
"""

from dataclasses import dataclass
from enum import StrEnum

BROKEN_FLAGS = "UC|UF|UR|UT|UPE|SI"
"""Envoy's flags of a request that failed behind the gateway, also after a 200: the connection broke
or was reset, or a timeout passed. Not `DC`: there the client went away."""


class By(StrEnum):
    """The label that tells a model's parts from each other."""

    VERSION = "version"
    WORKLOAD = "workload"


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One part of a model, over a window such as `10m`."""

    model: str
    name: str
    window: str
    by: By = By.VERSION

    @property
    def _istio(self) -> str:
        # Flagger puts a Service of its own in front of each part. Only the gateway's report
        # (`source`) is read: the pods' sidecars count the same requests once more.
        return (
            f'reporter="source",destination_service_name=~"{self.model}(-primary|-canary)?",'
            f'destination_{self.by}="{self.name}"'
        )

    @property
    def _vllm(self) -> str:
        return f'model_name="{self.model}",{self.by}="{self.name}"'

    def requests(self) -> str:
        """Requests that reached it."""
        return f"sum(increase(istio_requests_total{{{self._istio}}}[{self.window}]))"

    def errors(self) -> str:
        """Requests with a 5xx, and those that broke off, also in the middle of a stream."""
        total = f"increase(istio_requests_total{{{self._istio},%s}}[{self.window}])"
        status, broken = total % 'response_code=~"5.."', total % f'response_flags=~"{BROKEN_FLAGS}"'
        return f"(sum({status} or {broken}) or vector(0))"

    def error_rate(self) -> str:
        """`errors` divided by `requests`, 0 to 1. NaN or no series where there were none."""
        return f"{self.errors()} / {self.requests()}"

    def finished(self, reason: str | None = None) -> str:
        """Requests that vLLM finished, all or those with one `finished_reason`."""
        extra = f',finished_reason="{reason}"' if reason else ""
        return f"sum({self._increase('request_success_total', extra)})"

    def samples(self, histogram: str) -> str:
        """How many observations a quantile is computed from."""
        return f"sum({self._increase(f'{histogram}_count')})"

    def quantile(self, histogram: str, quantile: float) -> str:
        """A quantile of one of vLLM's histograms, in seconds."""
        rate = f"rate(vllm:{histogram}_bucket{{{self._vllm}}}[{self.window}])"
        return f"histogram_quantile({quantile}, sum by (le) ({rate}))"

    def mean(self, histogram: str) -> str:
        """The mean of one of vLLM's histograms, in seconds."""
        return f"sum({self._increase(f'{histogram}_sum')}) / {self.samples(histogram)}"

    def gauge(self, name: str) -> str:
        """The mean over its pods and the window of one of vLLM's gauges."""
        return f"avg(avg_over_time(vllm:{name}{{{self._vllm}}}[{self.window}]))"

    def tokens_per_request(self) -> str:
        """Generated tokens for each first token. Both count requests whose client went away."""
        return f"sum({self._increase('generation_tokens_total')}) / {self.samples(TTFT)}"

    def _increase(self, name: str, extra: str = "") -> str:
        return f"increase(vllm:{name}{{{self._vllm}{extra}}}[{self.window}])"


TTFT = "time_to_first_token_seconds"
PER_TOKEN = "inter_token_latency_seconds"  # noqa: S105
E2E = "e2e_request_latency_seconds"
WAITING = "num_requests_waiting"
KV_CACHE = "kv_cache_usage_perc"
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


def gates(stable: ModelPart, canary: ModelPart) -> dict[str, str]:
    """The queries of a controller about a canary, by the name of the gate.

    The ratios are NaN while stable has no traffic: `requests` is asked first.
    """
    return {
        "requests": canary.requests(),
        "error-rate": canary.error_rate(),
        "ttft-p95-ratio": f"{canary.quantile(TTFT, 0.95)} / {stable.quantile(TTFT, 0.95)}",
        "time-per-token-ratio": f"({canary.mean(PER_TOKEN)}) / ({stable.mean(PER_TOKEN)})",
        "queue": canary.gauge(WAITING),
    }
