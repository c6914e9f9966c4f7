"""Parts that are killed with -9 and come back: nothing is lost, doubled or stuck."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.box import settlements
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, request, running_fleet
from tests.patience import wait_until

LIMITS = """
      - {count: tokens, limit: 100000, per: year}
      - {count: requests, limit: 1000, per: year}
      - {count: concurrent, limit: 1, lease_s: 10, users: [bob]}
"""
"""The lease is long enough for a second request on a busy machine."""


@pytest.fixture
def fleet(upstream: Upstream, tmp_path: Path) -> Iterator[Fleet]:
    with running_fleet(tmp_path, upstream.url, LIMITS) as running:
        yield running


def left(answer: httpx.Response) -> tuple[int, int]:
    """Requests and tokens that are left."""
    kinds = ("requests", "tokens")
    return tuple(int(answer.headers[f"x-ratelimit-remaining-{kind}"]) for kind in kinds)


@pytest.mark.simulator
def test_a_stream_that_outlives_the_services_is_settled_by_those_that_came_back(
    fleet: Fleet,
) -> None:
    """The simulator holds the stream open until the client has seen the services return."""
    url = f"{fleet.url}/v1/chat/completions"
    wanted = request(stream=True, max_tokens=300)
    wanted["headers"]["x-simulate"] = "stall_after=20"
    with httpx.stream("POST", url, **wanted) as stream:
        held = left(stream)
        lines = stream.iter_lines()
        next(lines)
        fleet.kill("services")
        refused = fleet.chat()
        fleet.start_services()
        events = [line for line in itertools.islice(lines, 38) if line]

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert refused.json()["error"]["message"]
    assert len(events) == 19
    record = fleet.record_of(stream)
    wait_until(lambda: settlements(fleet.metrics(), "accesslog") == 1, "the settlement")
    used = record["prompt_tokens"] + record["completion_tokens"]
    assert record["source"] == "usage"
    assert record["completion_tokens"] in (19, 20)
    after = fleet.chat()
    requests, tokens = left(after)
    assert requests == held[0] - 1
    assert tokens == 100_000 - used - fleet.record_of(after)["estimated_tokens"]


def test_a_killed_envoy_gives_its_slots_back_when_their_lease_ends(fleet: Fleet) -> None:
    url = f"{fleet.url}/v1/chat/completions"
    long = request("bob", stream=True, max_tokens=6000, ignore_eos=True)
    with httpx.stream("POST", url, **long) as stream:
        assert stream.status_code == 200
        assert fleet.chat("bob").status_code == 429
        fleet.kill("envoy")
        with pytest.raises(httpx.HTTPError):
            list(stream.iter_lines())
    fleet.start_envoy()

    wait_until(lambda: fleet.chat("bob").status_code == 200, "the lease to end")


def test_a_redis_that_is_gone_is_503_and_one_that_is_back_is_200(fleet: Fleet) -> None:
    assert fleet.chat().status_code == 200
    fleet.redis.stop()
    gone = fleet.chat()
    fleet.redis.start()

    assert gone.status_code == 503
    assert gone.json()["error"]["message"]
    wait_until(lambda: fleet.chat().status_code == 200, "Redis to be used again")


def test_a_request_costs_two_round_trips_to_redis(fleet: Fleet) -> None:
    """One to reserve, one to settle, none for the access log's second settlement."""
    assert fleet.chat().status_code == 200
    with fleet.redis.client() as client:
        wait_until(lambda: evals(client) == 2, "the settlement")
        for _ in range(5):
            fleet.chat(stream=True, max_tokens=30)
        wait_until(lambda: evals(client) >= 12, "the settlements")
        fleet.wait_record(6)

        assert evals(client) == 12


def evals(client: object) -> int:
    """Script calls that Redis has served; an unknown script is loaded once and not counted."""
    stats = client.info("commandstats")
    calls = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
    failed = sum(stats.get(f"cmdstat_{name}", {}).get("failed_calls", 0) for name in ("evalsha",))
    return calls - failed
