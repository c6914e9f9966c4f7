"""Several replicas behind one Envoy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.core.lean_contract import HookPath
from tests.box import hook_path, metric
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, running_fleet

HOOKS = {
    HookPath.STANDARD: ("ext_authz", "ext_proc", "ratelimit"),
    HookPath.LEAN: ("lean",),
}[hook_path()]
LIMITS = "[{count: requests, limit: 100000, per: year}]"


@pytest.fixture(scope="module")
def fleet(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    with running_fleet(folder, upstream.url, LIMITS, replicas=3) as running:
        yield running


def test_the_calls_of_one_proxy_spread_over_all_replicas(fleet: Fleet) -> None:
    """Each hook of one request may be another one's: they share nothing but Redis."""
    for _ in range(12):
        assert fleet.chat().status_code == 200
    for number in fleet.numbers:
        page = fleet.metrics(number)
        for hook in HOOKS:
            assert metric(page, f'headgate_hook_seconds_count{{hook="{hook}"}}') >= 1


def test_a_replica_that_is_dead_costs_no_request_while_another_one_lives(fleet: Fleet) -> None:
    for number in (2, 3):
        fleet.kill(f"services-{number}")
        answers = [fleet.chat() for _ in range(12)]
        assert {answer.status_code for answer in answers} == {200}
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left == [*range(left[0], left[0] - 12, -1)]  # asked twice, each counts once
