"""A process without the secret of the answer cache says that nothing is kept, and says it once."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from extproc.cache.memory import MemoryAnswers
from headgate.core.answer_cache import ModelCache, TenantCache
from headgate.core.failover import Failover
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.answers import MissingSecret, running_answers
from headgate.program.settings import ServiceSettings
from tests.extproc.builders import POLICY
from tests.fakes import FakeClock

SAYS = "no answer is kept: `answer_cache` needs the option --cache-secret-file"


def asking(*, failover: Failover | None = None, tenant: bool = True) -> CompiledPolicy:
    """A policy with an `answer_cache` for a model, and for a tenant unless told otherwise."""
    tiny = replace(POLICY.models["tiny"], answer_cache=ModelCache(600, 1000), failover=failover)
    own = TenantCache(1000) if tenant else None
    acme = replace(POLICY.tenants["acme"], answer_cache=own)
    return replace(
        POLICY, models={**POLICY.models, "tiny": tiny}, tenants={**POLICY.tenants, "acme": acme}
    )


async def test_a_policy_that_asks_for_a_cache_after_a_reload_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policies = iter([POLICY, asking(), asking(), POLICY, asking()])
    missing = MissingSecret(lambda: next(policies))
    told = []
    for _ in range(5):
        await missing.look()
        told.append(len(caplog.messages))

    assert told == [0, 1, 1, 1, 2]
    assert set(caplog.messages) == {SAYS}


@pytest.mark.parametrize(
    "policy",
    [POLICY, asking(tenant=False), asking(failover=Failover(to="spot"))],
    ids=["nothing", "no tenant", "failover"],
)
async def test_a_policy_that_keeps_no_answer_needs_no_secret(
    policy: CompiledPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    await MissingSecret(lambda: policy).look()

    assert caplog.messages == []


async def test_the_start_and_later_reloads_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headgate.program.answers._LOOK_INTERVAL_S", 0.0)
    clock, policy = FakeClock(0), POLICY
    metrics = Metrics(CollectorRegistry(), clock)
    settings = ServiceSettings()
    kept = running_answers(settings, lambda: policy, MemoryAnswers(clock), clock, metrics)
    async with kept as cache:
        assert (cache, caplog.messages) == (None, [])
        policy = asking()
        while not caplog.messages:  # noqa: ASYNC110 - a line of the log has no event
            await asyncio.sleep(0)

    assert caplog.messages == [SAYS]
