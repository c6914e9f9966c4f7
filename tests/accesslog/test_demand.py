"""What an ended request says about the demand for pods."""

import pytest
from prometheus_client import CollectorRegistry

from accesslog.counts import RequestCounts
from accesslog.meter import meter
from headgate.core.metrics import Metrics
from headgate.policy import parse_policy
from tests.accesslog.entries import ADMISSION, entry, prices_of
from tests.fakes import FakeClock

POLICY = parse_policy(
    b"""
models:
  llama-8b:
    upstream: "http://127.0.0.1:1"
    context_tokens: 8192
    versions:
      v1: {weight: 90}
      v2: {weight: 10, upstream: "http://127.0.0.1:2"}
  llama-8b-sql: {base: llama-8b, adapter: sql-v3}
tenants: {acme: {models: [llama-8b], keys: [], limits: []}}
""",
    "policy.yaml",
)
V2 = {**ADMISSION, "version": "v2"}


class Demand:
    """The counters after one request."""

    def __init__(self, **changes: object) -> None:
        registry = CollectorRegistry()
        request = meter(entry(**changes), prices_of)
        assert request is not None
        RequestCounts(Metrics(registry, FakeClock()), lambda: POLICY).count(request.record)
        self._registry = registry

    def of(self, name: str, base: str = "llama-8b", version: str = "v2") -> float:
        labels = {"base": base, "version": version}
        return self._registry.get_sample_value(f"headgate_{name}_total", labels) or 0.0


def test_an_ended_request_frees_its_estimate_on_the_pods_of_its_base_and_version() -> None:
    ended = Demand(admission=V2)

    assert ended.of("settled_tokens") == 300
    assert ended.of("settled_requests") == 1
    assert ended.of("capacity_refusals") == 0


@pytest.mark.parametrize("flags", [("RL",), ("RLSE",)])
def test_a_request_that_reserved_nothing_is_no_demand(flags: tuple[str, ...]) -> None:
    refused = Demand(admission=V2, status=429, flags=flags, upstream_rx_s=None, usage={})

    assert refused.of("settled_tokens") == 0
    assert refused.of("settled_requests") == 0
    assert refused.of("capacity_refusals") == 0


@pytest.mark.parametrize(
    ("status", "flags", "from_vllm", "counted"),
    [
        (503, ("UH",), False, 1),
        (503, ("UO",), False, 1),
        (503, (), True, 1),  # its queue is full
        (503, ("UF", "URX"), False, 0),  # more pods do not mend a dead one
        (500, (), True, 0),
        (429, (), True, 0),
    ],
)
def test_only_missing_and_full_pods_are_a_lack_of_capacity(
    status: int, flags: tuple[str, ...], from_vllm: bool, counted: int
) -> None:
    usage = {"status": str(status)}
    first_byte_s = 0.01 if from_vllm else None
    ended = Demand(
        admission=V2, status=status, flags=flags, upstream_rx_s=first_byte_s, usage=usage
    )

    assert ended.of("capacity_refusals") == counted
    assert ended.of("settled_tokens") == 300


def test_a_name_that_the_policy_lacks_counts_as_its_base() -> None:
    """As at its reservation: an adapter of a tenant, or a model that has left the policy since."""
    gone = Demand(admission={**V2, "model": "gone", "base": "llama-8b"})

    assert gone.of("settled_tokens", "llama-8b", "v2") == 300


def test_names_that_the_policy_lacks_make_no_series() -> None:
    gone = Demand(admission={**V2, "model": "gone", "base": "gone"})
    without = Demand(admission={**V2, "version": "v9"})

    assert gone.of("settled_tokens", "-", "-") == 300
    assert without.of("settled_tokens", "llama-8b", "-") == 300
