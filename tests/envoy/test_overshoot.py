"""However many come at once, and whoever decides: no more are let in than fit."""

import pytest

from bench.overshoot import Setup, check, overshoot, running
from headgate.core.lean_contract import HookPath
from tests.envoy.conftest import Upstream


@pytest.mark.simulator
@pytest.mark.parametrize(
    ("setup", "requests"),
    [
        (Setup("memory", 1), 300),
        (Setup("Redis", 3), 300),
        (Setup("Redis", 3, ", slice: 5000"), 300),
        (Setup("Redis", 1, workers=4), 1_000),
        (Setup("memory", 1, path=HookPath.LEAN), 300),
        (Setup("Redis", 3, path=HookPath.LEAN), 300),
    ],
    ids=["memory-1", "redis-3", "slices-3", "workers-4", "lean-memory-1", "lean-redis-3"],
)
async def test_of_many_requests_at_once_exactly_those_are_admitted_that_fit(
    setup: Setup, requests: int, upstream: Upstream
) -> None:
    """They hold all of the limit until they end, and what they used from then on."""
    with running(setup, upstream.url) as fleet:
        outcome = await overshoot(fleet, requests)

    check(outcome, requests, setup)
