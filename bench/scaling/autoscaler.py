"""The HorizontalPodAutoscaler that KEDA makes of a ScaledObject, and the objects to compare.

The law is that of autoscaling/v2 for external metrics of the type AverageValue. Each trigger asks
for ceil(value / threshold) pods, unless the value is within a tenth of what the pods are for. The
largest answer counts. A trigger without an answer is an error: then no pod is removed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

SCALED_OBJECT = (
    Path(__file__).parents[2] / "istio" / "components" / "keda" / "scaledobject-llama-8b.yaml"
)
SYNC_S = 15.0
_TOLERANCE = 0.1

DEMAND, WAITING, RUNNING = (
    "headgate_reserved_tokens_total",
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
)
TTFT, UNAVAILABLE = (
    "vllm:time_to_first_token_seconds_bucket",
    "kube_deployment_status_replicas_unavailable",
)
SIGNALS = (TTFT, UNAVAILABLE, DEMAND, WAITING, RUNNING)
"""The metric that tells what a query asks. A query may read further ones: the first one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A ScaledObject: its thresholds by signal, its bounds and its behavior."""

    thresholds: Mapping[str, float]
    least: int = 2
    most: int = 8
    up_window_s: float = 0.0
    up_pods: int = 4
    up_period_s: float = 15.0
    down_window_s: float = 300.0
    down_pods: int = 100
    down_period_s: float = 15.0
    empty_is_zero: bool = True
    """`ignoreNullValues: "true"`, KEDA's default."""


QUEUE_ONLY = Rules(thresholds={WAITING: 4})
"""KEDA's and Kubernetes' defaults, with vLLM's queue as the only trigger."""
BEFORE = Rules(
    thresholds={WAITING: 4, RUNNING: 48},
    up_window_s=30,
    up_pods=2,
    up_period_s=120,
    down_window_s=1800,
    down_pods=1,
    down_period_s=600,
)
"""What istio/components/keda had before there was a signal of demand."""


def shipped() -> Rules:
    """The rules of the ScaledObject that istio/components/keda has."""
    spec = YAML(typ="safe").load(SCALED_OBJECT.read_text())["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    triggers = [trigger["metadata"] for trigger in spec["triggers"]]
    return Rules(
        thresholds={_signal(each["query"]): float(each["threshold"]) for each in triggers},
        least=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        up_window_s=up["stabilizationWindowSeconds"],
        **_policy("up", up),
        down_window_s=down["stabilizationWindowSeconds"],
        **_policy("down", down),
        empty_is_zero=any(each.get("ignoreNullValues") != "false" for each in triggers),
    )


def _signal(query: str) -> str:
    return next(signal for signal in SIGNALS if signal in query)


def _policy(way: str, scale: Mapping[str, Any]) -> dict[str, Any]:
    (policy,) = scale["policies"]
    return {f"{way}_pods": policy["value"], f"{way}_period_s": policy["periodSeconds"]}


@dataclass(slots=True)
class Autoscaler:
    """Decides every `SYNC_S` how many pods there shall be."""

    rules: Rules
    pods: int
    _wanted: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, values: Mapping[str, float | None]) -> int:
        """The number of pods, by the value of each signal; None for an empty answer."""
        wanted = self._stabilised(now_s, self._asked(values))
        bounded = min(max(self._limited(now_s, wanted), self.rules.least), self.rules.most)
        if bounded != self.pods:
            self._changes.append((now_s, bounded - self.pods))
            self.pods = bounded
        return bounded

    def _asked(self, values: Mapping[str, float | None]) -> int:
        answers = {signal: values[signal] for signal in self.rules.thresholds}
        known = {signal: value for signal, value in answers.items() if value is not None}
        asked = max((self._for(signal, value) for signal, value in known.items()), default=0)
        if len(known) < len(answers) and not self.rules.empty_is_zero:
            return max(asked, self.pods)
        return asked

    def _for(self, signal: str, value: float) -> int:
        threshold = self.rules.thresholds[signal]
        if abs(value / threshold / self.pods - 1) <= _TOLERANCE:
            return self.pods
        return math.ceil(value / threshold)

    def _stabilised(self, now_s: float, asked: int) -> int:
        rules = self.rules
        self._wanted.append((now_s, asked))
        longest_s = max(rules.up_window_s, rules.down_window_s)
        self._wanted = [each for each in self._wanted if each[0] > now_s - longest_s - 1]
        up = min(each for at_s, each in self._wanted if at_s >= now_s - rules.up_window_s)
        down = max(each for at_s, each in self._wanted if at_s >= now_s - rules.down_window_s)
        return min(max(self.pods, up), down)

    def _limited(self, now_s: float, wanted: int) -> int:
        rules = self.rules
        added = self._changed(now_s - rules.up_period_s, 1)
        removed = self._changed(now_s - rules.down_period_s, -1)
        highest = self.pods - added + rules.up_pods
        lowest = self.pods + removed - rules.down_pods
        return max(min(wanted, max(highest, self.pods)), min(lowest, self.pods))

    def _changed(self, since_s: float, sign: int) -> int:
        return sum(abs(by) for at_s, by in self._changes if at_s > since_s and by * sign > 0)
