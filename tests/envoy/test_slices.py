"""Limits in slices at three replicas behind one real Envoy: who holds a request travels with it."""

import json
from contextlib import closing
from pathlib import Path

from headgate.core.lean_contract import HookPath
from tests.box import metric, settlements
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, running_fleet, services
from tests.patience import PATIENCE_S, wait_until

REQUESTS = 30
LIMITS = """
      - {count: tokens, limit: 1000000, per: year, slice: 50000}
      - {count: requests, limit: 100000, per: year, slice: 1000}
"""


def counted(fleet: Fleet) -> dict[str, int]:
    """The usage that Redis counts, by the kind of limit."""
    with closing(fleet.redis.client()) as client:
        keys = client.keys("{hg:acme}c:*")
        return {key.partition("c:")[2].partition(".")[0]: int(client.get(key)) for key in keys}


def charged(fleet: Fleet) -> list[int]:
    """The tokens of each request that was admitted."""
    records = [json.loads(line) for line in fleet.records().splitlines()]
    return [
        record["prompt_tokens"] + record["completion_tokens"]
        for record in records
        if record["reservation"]
    ]


def settled(fleet: Fleet, *outcomes: str) -> int:
    """How many settlements of the proxy's were answered, with these outcomes if any are given."""
    pages = map(fleet.metrics, fleet.numbers)
    via = "accesslog" if fleet.box.path is HookPath.LEAN else "ratelimit"
    return sum(settlements(page, via, *outcomes) for page in pages)


def scripts_run(fleet: Fleet) -> int:
    """How many decisions and settlements Redis was asked for."""
    with closing(fleet.redis.client()) as client:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def slices_moved(fleet: Fleet) -> int:
    """How many slices the replicas have asked for or given back: a few, or more on a slow machine.

    A slice that is not used for a second goes back.
    """
    pages = map(fleet.metrics, fleet.numbers)
    ways = ("taken", "refused", "returned")
    return sum(
        int(metric(page, f'headgate_slices_total{{what="{way}"}}'))
        for page in pages
        for way in ways
    )


def test_redis_learns_what_was_used_through_whatever_replica_and_is_asked_for_slices_alone(
    upstream: Upstream, tmp_path: Path
) -> None:
    with running_fleet(tmp_path, upstream.url, LIMITS, replicas=3) as fleet:
        for _ in range(REQUESTS):
            assert fleet.chat().status_code == 200
        wait_until(lambda: len(charged(fleet)) == REQUESTS, "the records")
        wait_until(lambda: settled(fleet) == REQUESTS, "the settlements")
        assert settled(fleet, "forwarded") > 0
        # A duplicate: the access log came first, as it may. Redis has counted once, see below.
        assert settled(fleet, "usage", "forwarded", "duplicate") == REQUESTS
        wait_until(lambda: scripts_run(fleet) == slices_moved(fleet), "a script for each slice")

        leaving = fleet.processes[services(2)]
        leaving.terminate()  # gives back what it has, whether or not it was used
        assert leaving.wait(PATIENCE_S) == 0
        expected = {"tokens": sum(charged(fleet)), "requests": REQUESTS}
        wait_until(lambda: counted(fleet) == expected, f"{expected} in Redis")
