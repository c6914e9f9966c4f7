"""Requests for adapters that were registered at run time."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import BuiltinFunctionType, FrameType

import pytest
from msgspec import structs

from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.lookup import version_to_keep
from extproc.types import Admit, Answer, Peek, Refuse, RequestDecision, Rewrite
from headgate.adapters.registry import AdapterRow, MemoryRegistry
from headgate.core.adapter_pools import AdapterPool
from headgate.core.adapters import AdaptersUnavailableError, RegisteredAdapter, counted_as
from headgate.core.apis import Api
from headgate.core.contract import AdmissionKey, Header
from headgate.core.errors import Refusal
from headgate.core.key_ring import NO_KEYS
from headgate.core.policy import Caller, CompiledPolicy, Tenant
from tests.extproc.builders import ALICE, MODELS, POLICY, facts

POOL = AdapterPool(
    pods=("10.0.0.1:8000",),
    live=2,
    listed=4,
    max_rank=8,
    trained_on=("tiny",),
    folder="/adapters",
    agent_port=9003,
)
BOB = Caller("rivals", "bob", "k2")


class Registry:
    """Adapters of acme, and the pods of each version."""

    def __init__(self, *adapters: RegisteredAdapter, pods: Sequence[str] = ()) -> None:
        self._adapters = {one.name: one for one in adapters}
        self._pods = pods

    def find(self, name: str, tenant: str) -> RegisteredAdapter | None:
        return self._adapters.get(name) if tenant == "acme" else None

    def names_of(self, tenant: str) -> Sequence[str]:
        return sorted(self._adapters) if tenant == "acme" else ()

    def base_of(self, name: str) -> str | None:
        return self._adapters[name].base if name in self._adapters else None

    def pods_of(self, version: str) -> tuple[str, ...]:
        return ("10.0.0.1:8000",) if version in self._pods else ()


class UnfilledRegistry(Registry):
    """The registry of a replica that has not reached its database yet."""

    def find(self, name: str, tenant: str) -> RegisteredAdapter | None:
        raise AdaptersUnavailableError(f"{name} of {tenant} is not known")


def adapter(name: str = "sql", *weights: tuple[int, int], base: str = "tiny") -> RegisteredAdapter:
    return RegisteredAdapter(name=name, base=base, weights=weights or ((7, 100),))


def with_pool() -> CompiledPolicy:
    models = {**MODELS, "tiny": replace(MODELS["tiny"], adapter_pool=POOL)}
    return replace(POLICY, models=models)


def asked(
    name: str,
    registry: Registry,
    policy: CompiledPolicy = POLICY,
    caller: Caller = ALICE,
    version: str | None = None,
) -> RequestDecision:
    request = structs.replace(facts({"model": name}, caller=caller), adapter_version=version)
    return decide(request, policy, Estimator(), "r1", adapters=registry)


def refused(decision: RequestDecision) -> Refuse:
    assert isinstance(decision, Refuse)
    return decision


def admitted(decision: RequestDecision) -> Admit:
    assert isinstance(decision, Admit)
    return decision


def test_the_request_goes_to_vllm_under_the_name_of_its_version() -> None:
    admit = admitted(asked("sql", Registry(adapter())))
    assert admit.rewrite == Rewrite("sql@7", force_usage=False)
    assert admit.headers[Header.MODEL] == "sql"
    assert admit.headers[Header.BASE] == "tiny"
    assert admit.headers[Header.LORA] == "sql@7"
    assert admit.admission[AdmissionKey.MODEL] == "sql"
    assert admit.admission[AdmissionKey.ADAPTER] == "sql@7"
    assert admit.admission[AdmissionKey.SERVED_AS] == "sql@7"


@pytest.mark.parametrize("name", ["sql", "no-such", "../sql", "sql@7", "/etc", "rival"])
def test_a_foreign_name_and_an_unknown_one_get_the_same_answer(name: str) -> None:
    error = refused(asked(name, Registry(adapter()), caller=BOB if name == "sql" else ALICE)).error
    assert error.refusal is Refusal.UNKNOWN_MODEL
    assert error.message == (
        f"The model '{name}' does not exist. GET /v1/models lists your models."
    )


def calls_of(work: Callable[[], object]) -> list[tuple[str, str]]:
    """Every call of a function that the work makes, in Python or in C, and every return."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, of: object) -> None:
        name = of.__qualname__ if isinstance(of, BuiltinFunctionType) else frame.f_code.co_qualname
        calls.append((event, name))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls[:-1]  # the last one is that of setprofile


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models/{}", "/v1/headgate/limits"])
def test_a_foreign_name_takes_the_same_work_as_one_that_nobody_has(path: str) -> None:
    """Another tenant's adapter of the registry, one of the policy, and no model at all."""
    registry = MemoryRegistry()
    registry.replace([AdapterRow("theirs", "rivals", "tiny", (), ((7, 100),), False)])
    method = "POST" if path.endswith("completions") else "GET"

    def ask(name: str) -> list[tuple[str, str]]:
        asked_path = path.format(name) if "{" in path else f"{path}?model={name}"
        request = facts({"model": name}, path=asked_path, method=method)

        def work() -> None:
            assert version_to_keep(request, POLICY, NO_KEYS, registry) is None
            refused(decide(request, POLICY, Estimator(), "r1", adapters=registry))

        work()  # what is done once alone, such as compiling a pattern
        return calls_of(work)

    unknown = ask("nobody")
    assert ("call", "MemoryRegistry.find") in unknown
    assert ask("theirs") == unknown
    assert ask("rival") == unknown


def test_whoever_may_not_use_the_base_may_not_use_the_adapter() -> None:
    error = refused(asked("sql", Registry(adapter(base="reserved")))).error
    assert error.refusal is Refusal.UNKNOWN_MODEL


def test_a_model_of_the_policy_goes_before_an_adapter_of_its_name() -> None:
    registry = Registry(adapter("tiny"), adapter("rival"))
    assert AdmissionKey.ADAPTER not in admitted(asked("tiny", registry)).admission
    assert refused(asked("rival", registry)).error.refusal is Refusal.UNKNOWN_MODEL


def test_the_list_shows_a_caller_their_own_names() -> None:
    def names(caller: Caller) -> list[str]:
        request = facts({}, path="/v1/models", caller=caller, method="GET")
        decision = decide(request, POLICY, Estimator(), "r1", adapters=Registry(adapter()))
        assert isinstance(decision, Answer)
        return [entry["id"] for entry in json.loads(decision.body)["data"]]

    assert "sql" in names(ALICE)
    assert "sql" not in names(BOB)


def test_a_name_that_cannot_be_known_is_not_called_unknown() -> None:
    error = refused(asked("sql", UnfilledRegistry())).error
    assert error.refusal is Refusal.UNAVAILABLE
    assert isinstance(asked("tiny", UnfilledRegistry()), Admit)


def test_a_version_that_no_pod_has_is_refused_at_once_and_wanted() -> None:
    decision = refused(asked("sql", Registry(adapter()), with_pool()))
    assert decision.error.refusal is Refusal.MODEL_NOT_LOADED
    assert decision.error.refusal.status == 503
    assert decision.wants == "sql@7"
    assert isinstance(asked("sql", Registry(adapter(), pods=["sql@7"]), with_pool()), Admit)


def test_a_conversation_keeps_its_version_while_that_has_a_weight() -> None:
    registry = Registry(adapter("sql", (7, 90), (8, 10), (9, 0)))

    def served(version: str | None) -> str:
        return admitted(asked("sql", registry, version=version)).admission[AdmissionKey.ADAPTER]

    assert served("sql@8") == "sql@8"
    assert served("sql@9") == "sql@7"
    assert served("other@1") == "sql@7"
    assert served(None) == "sql@7"


def test_only_an_adapter_with_several_versions_has_one_to_remember() -> None:
    registry = Registry(adapter("sql", (7, 90), (8, 10)), adapter("law"))

    def kept(name: str, caller: Caller = ALICE) -> object:
        return version_to_keep(facts({"model": name}, caller=caller), POLICY, NO_KEYS, registry)

    assert kept("sql") is not None
    assert kept("sql", BOB) is None
    assert kept("law") is None
    assert kept("tiny") is None


def test_the_limits_of_the_base_are_those_of_the_adapter() -> None:
    registry = Registry(adapter())
    request = facts({}, path="/v1/headgate/limits?model=sql", method="GET")
    decision = decide(request, POLICY, Estimator(), "r1", adapters=registry)
    tenant: Tenant = POLICY.tenants["acme"]
    assert decision == Peek(tenant, ALICE, "tiny", Api.LIMITS)
    assert counted_as("sql", POLICY, registry) == "tiny"
    assert counted_as("poet", POLICY, registry) == "poet"
    assert counted_as("gone", POLICY, registry) == "gone"
