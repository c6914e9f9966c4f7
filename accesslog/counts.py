"""Counts finished requests in the metrics.

Labels come only from the policy in force and from our own names: each new label would cost memory
forever.
"""

from collections.abc import Callable, Container
from functools import lru_cache, partial

from msgspec import Struct

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
_MOST_SETS = 4_096
"""How many sets of names are remembered, each with its labels."""
_FULL = 503
"""vLLM's status beyond `--max-num-queued-reqs`."""


class _Labels(Struct, frozen=True, kw_only=True, gc=False):
    """The labels of a finished request."""

    tenant: str
    model: str
    pods: tuple[str, str]
    api: str
    status: str
    class_: str


class RequestCounts:
    """The metrics of finished requests."""

    def __init__(self, metrics: Metrics, policy: Callable[[], CompiledPolicy]) -> None:
        self._policy = policy
        self._labelled: CompiledPolicy | None = None
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
        if policy is not self._labelled:
            self._labelled = policy
            self._labels_of = lru_cache(maxsize=_MOST_SETS)(partial(_labels, policy))
        labels = self._labels_of(
            (record.tenant, record.model, record.base, record.version),
            record.api,
            record.status,
        )
        tenant, model, pods = labels.tenant, labels.model, labels.pods
        version = pods[1]
        self._requests(tenant, model, labels.api, labels.status).value += 1
        self._answers(model, version, labels.class_, record.ended or ABSENT).value += 1
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
        self._settled_requests(*pods).value += 1
        self._settled_tokens(*pods).value += record.estimated_tokens or 0
        if record.upstream_status == _FULL or not _NO_POD.isdisjoint(record.flags):
            self._no_capacity(*pods).value += 1

    def _count_tokens(self, tenant: str, model: str, record: UsageRecord) -> None:
        if record.prompt_tokens:
            self._tokens(tenant, model, "prompt").value += record.prompt_tokens
        if record.cached_tokens:
            self._tokens(tenant, model, "cached").value += record.cached_tokens
        if record.completion_tokens:
            self._tokens(tenant, model, "completion").value += record.completion_tokens
        if record.reasoning_tokens:
            self._tokens(tenant, model, "reasoning").value += record.reasoning_tokens
        if record.cost:
            self._cost(tenant, model).value += float(record.cost)

    def count_place(self, record: UsageRecord, place: AnsweredBy) -> None:
        """Counts which pod of its list a request has met."""
        self._places(*pods_of(self._policy(), record.base, record.version), place).inc()

    def count_estimate(self, model: str, ratio: float) -> None:
        """Counts how many times its used tokens a request had held."""
        self._ratio(_known(model, self._policy().models)).observe(ratio)


def _labels(
    policy: CompiledPolicy,
    names: tuple[str | None, str | None, str | None, str | None],
    api: str | None,
    status: int | None,
) -> _Labels:
    """The labels of a record's tenant, model, base and version, of its API and its status.

    A registered adapter counts as its base.
    """
    tenant, model, base, version = names
    name = model if model in policy.models else base
    return _Labels(
        tenant=_known(tenant, policy.tenants),
        model=_known(name, policy.models),
        pods=pods_of(policy, name, version),
        api=_known(api, _APIS),
        status=_known(status, _STATUSES),
        class_=_class(status),
    )


def _class(status: int | None) -> str:
    return f"{status // 100}xx" if status is not None and 200 <= status < 600 else "none"


def _known(label: object, labels: Container[object]) -> str:
    return str(label) if label in labels else ABSENT
