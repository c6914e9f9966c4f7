"""The settings of each worker: what several of them share is divided."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from extproc.pins.memory import MemoryPins
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.program.app import build_hooks
from headgate.program.hooks import HookInputs
from headgate.program.parts import Parts
from headgate.program.settings import GrpcServer, ServiceSettings, StoreSettings
from headgate.program.workers.setups import setups
from ratelimit.store.memory import MemoryStore
from tests.extauthz.builders import POLICY, NoTokens, check_request
from tests.fakes import FakeClock

SETTINGS = ServiceSettings(workers=4, store=StoreSettings("redis://r", replicas=3))
ALLOWED = 30
WRONG_KEY = ("authorization", b"Bearer sk-wrong")


def inputs() -> HookInputs:
    clock = FakeClock()
    metrics = Metrics(CollectorRegistry(), clock)
    return HookInputs(policy=lambda: POLICY, domains=None, clock=clock, metrics=metrics)


def test_each_worker_is_a_replica_of_its_own() -> None:
    made = setups(SETTINGS, inputs(), ())

    assert [setup.number for setup in made] == [1, 2, 3, 4]
    assert {setup.settings.store.replicas for setup in made} == {12}
    assert all(setup.takes_connections for setup in made)


def test_in_one_box_each_worker_listens_on_a_socket_of_its_own() -> None:
    paths = [Path(f"/run/hooks-{number}.sock") for number in range(1, 5)]
    made = setups(SETTINGS, inputs(), paths)

    assert [setup.settings.hooks for setup in made] == [f"unix:{path}" for path in paths]
    assert not any(setup.takes_connections for setup in made)


@pytest.mark.parametrize("workers", [1, 2, 4, 30, 60])
async def test_all_workers_together_let_as_many_failed_keys_through_as_one(workers: int) -> None:
    """More workers than failures let one through each."""
    passed = 0
    for _ in range(workers):
        given = inputs()
        parts = Parts(
            policy=given.policy,
            store=MemoryStore(),
            pins=MemoryPins(given.clock),
            clock=given.clock,
            metrics=given.metrics,
            verifier=NoTokens(),
        )
        settings = ServiceSettings(workers=workers, auth_failures_per_minute=ALLOWED)
        hooks = build_hooks(settings, parts)
        for _ in range(ALLOWED + 1):
            answer = await hooks.authorization.check(check_request(WRONG_KEY), None)
            passed += answer.denied_response.status.code == 401

    assert ALLOWED - workers < passed <= max(ALLOWED, workers)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (replace(SETTINGS, store=StoreSettings()), "--workers 4 needs a Redis"),
        (replace(SETTINGS, grpc_server=GrpcServer.GRPCIO), "--workers 4 needs --grpc-server own"),
    ],
)
def test_settings_that_several_workers_cannot_have_are_refused(
    settings: ServiceSettings, problem: str
) -> None:
    with pytest.raises(OperatorError, match=problem):
        setups(settings, inputs(), ())
