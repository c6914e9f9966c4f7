"""Several replicas behind one Envoy."""

from pathlib import Path

from tests.box import metric
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import running_fleet

HOOKS = ("ext_authz", "ext_proc", "ratelimit")
LIMITS = "[{count: requests, limit: 100000, per: year}]"


def test_the_calls_of_one_proxy_spread_over_all_replicas(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Each hook of one request may be another one's: they share nothing but Redis."""
    with running_fleet(tmp_path, upstream.url, LIMITS, replicas=3) as fleet:
        for _ in range(12):
            assert fleet.chat().status_code == 200
        for number in fleet.numbers:
            told = fleet.metrics(number)
            for hook in HOOKS:
                assert metric(told, f'headgate_hook_seconds_count{{hook="{hook}"}}') >= 1
