"""Limits in slices at three replicas behind one real Envoy: who holds a request travels with it."""

import json
from contextlib import closing
from pathlib import Path

from tests.box import settlements
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, running_fleet, services
from tests.patience import PATIENCE_S, wait_until

REQUESTS = 30
LIMITS = """
      - {count: tokens, limit: 1000000, per: year, slice: 50000}
      - {count: requests, limit: 100000, per: year, slice: 1000}
"""


def counted(fleet: Fleet) -> dict[str, int]:
    """What Redis counts as used, by the kind of limit."""
    with closing(fleet.redis.client()) as client:
        keys = client.keys("{hg:acme}c:*")
        return {key.partition("c:")[2].partition(".")[0]: int(client.get(key)) for key in keys}


def charged(fleet: Fleet) -> list[int]:
    """The tokens of each request that was admitted."""
    records = [json.loads(line) for line in fleet.records().splitlines()]
    return [
        one["prompt_tokens"] + one["completion_tokens"] for one in records if one["reservation"]
    ]


def settled(fleet: Fleet, *outcomes: str) -> int:
    """How many calls of the proxy's were answered, with one of these outcomes if any are given."""
    pages = map(fleet.metrics, fleet.numbers)
    return sum(settlements(page, "ratelimit", *outcomes) for page in pages)


def test_redis_learns_what_was_used_through_whatever_replica_and_is_hardly_asked(
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

        leaving = fleet.processes[services(2)]
        leaving.terminate()  # gives back what it has, whether or not it was used
        assert leaving.wait(PATIENCE_S) == 0
        expected = {"tokens": sum(charged(fleet)), "requests": REQUESTS}
        wait_until(lambda: counted(fleet) == expected, f"{expected} in Redis")
        with closing(fleet.redis.client()) as client:
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] < REQUESTS
