"""Counts finished requests in the metrics.

Labels come only from the policy in force and from our own names: each new label would cost memory
forever.
"""

from collections.abc import Callable, Container

from accesslog.types import UsageRecord
from headgate.core.apis import Api
from headgate.core.contract import ABSENT
from headgate.core.metrics import Metrics
from headgate.core.placement_metrics import AnsweredBy
from headgate.core.pods import pods_of
from headgate.core.policy import CompiledPolicy

_STATUSES = range(100, 600)
_APIS = frozenset(Api)
_NOT_RESERVED = frozenset({"RL", "RLSE"})
"""Envoy's flags of a request that a limit refused, or about which the service could not decide."""
_NO_POD = frozenset({"UH", "UO"})
"""Envoy's flags where no pod is healthy, and where the circuit breaker is open."""
_FULL = 503
"""vLLM's status beyond `--max-num-queued-reqs`."""


class RequestCounts:
    """The metrics of finished requests."""

    def __init__(self, metrics: Metrics, policy: Callable[[], CompiledPolicy]) -> None:
        self._policy = policy
        self._requests = metrics.requests.labels
        self._answers = metrics.of_requests.answers.labels
        self._seconds = metrics.of_requests.seconds.labels
        self._cost = metrics.of_requests.cost.labels
        self._tokens = metrics.tokens.labels
        self._ttft_s = metrics.ttft_seconds.labels
        self._settled_tokens = metrics.demand.settled_tokens.labels
        self._settled_requests = metrics.demand.settled_requests.labels
        self._no_capacity = metrics.demand.capacity_refusals.labels
        self._places = metrics.of_placement.answers.labels
        self._ratio = metrics.estimate_ratio.labels

    def count(self, record: UsageRecord) -> None:
        """Counts one request."""
        policy = self._policy()
        tenant = _known(record.tenant, policy.tenants)
        name = record.model if record.model in policy.models else record.base
        model = _known(name, policy.models)  # a registered adapter counts as its base
        pods = pods_of(policy, name, record.version)
        version = pods[1]
        status = _known(record.status, _STATUSES)
        self._requests(tenant, model, _known(record.api, _APIS), status).inc()
        self._answers(model, version, _class(record.status), record.ended or ABSENT).inc()
        if record.upstream_status is not None:
            self._seconds(model, version).observe(record.duration_s, record.trace_id)
        if record.ttft_s is not None and record.cache is None:
            self._ttft_s(model, version).observe(record.ttft_s, record.trace_id)
        self._count_tokens(tenant, model, record)
        self._count_demand(record, pods)

    def _count_demand(self, record: UsageRecord, pods: tuple[str, str]) -> None:
        if record.reservation is None or record.cache is not None:
            return
        if not _NOT_RESERVED.isdisjoint(record.flags):
            return
        self._settled_requests(*pods).inc()
        self._settled_tokens(*pods).inc(record.estimated_tokens or 0)
        if record.upstream_status == _FULL or not _NO_POD.isdisjoint(record.flags):
            self._no_capacity(*pods).inc()

    def _count_tokens(self, tenant: str, model: str, record: UsageRecord) -> None:
        if record.prompt_tokens:
            self._tokens(tenant, model, "prompt").inc(record.prompt_tokens)
        if record.cached_tokens:
            self._tokens(tenant, model, "cached").inc(record.cached_tokens)
        if record.completion_tokens:
            self._tokens(tenant, model, "completion").inc(record.completion_tokens)
        if record.reasoning_tokens:
            self._tokens(tenant, model, "reasoning").inc(record.reasoning_tokens)
        if record.cost:
            self._cost(tenant, model).inc(float(record.cost))

    def count_place(self, base: str | None, place: AnsweredBy) -> None:
        """Counts which pod of its list a request has met."""
        self._places(_known(base, self._policy().models), place).inc()

    def count_estimate(self, model: str, ratio: float) -> None:
        """Counts how many times its used tokens a request had held."""
        self._ratio(_known(model, self._policy().models)).observe(ratio)


def _class(status: int | None) -> str:
    return f"{status // 100}xx" if status is not None and 200 <= status < 600 else "none"


def _known(label: object, labels: Container[object]) -> str:
    return str(label) if label in labels else ABSENT
