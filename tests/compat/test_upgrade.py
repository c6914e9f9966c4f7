"""A later version goes on where a release stopped: the same messages, states, records and policy.

Each folder beside this file holds what one release wrote (`record.py`). An upgrade runs old and
new replicas side by side, on one Redis and under the EnvoyFilters of either.
"""

import json
import re
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from headgate.policy import load_policy
from headgate.replay.records import Records
from tests.compat.record import state
from tests.compat.replaying import events, running_replica
from tests.redis_server import running_redis

RELEASES = sorted(file.parent for file in Path(__file__).parent.glob("*/messages.jsonl"))
SLICED = "tokens.year"
"""The limit of which a replica takes slices: how much of it is taken depends on the moment."""


@pytest.fixture(params=RELEASES, ids=lambda folder: folder.name)
def release(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


def saved(release: Path, name: str) -> dict[str, Any]:
    """A state of Redis that the release left behind."""
    content: dict[str, Any] = json.loads((release / f"redis-{name}.json").read_text())
    return content


def reservations(release: Path) -> set[str]:
    """The ids that requests had; a slice has another, which only its replica knows."""
    lines = (release / "usage.jsonl").read_text().splitlines()
    return {str(json.loads(line)["reservation"]) for line in lines}


def values(keys: dict[str, Any], ids: set[str]) -> dict[str, Any]:
    """The meaning of a state: keys and values, without times to live.

    The recorded program read its clock some milliseconds after each message. So all readings
    count as the same time. The level of a bucket drains by the clock, and counts as any level.
    """
    plain = {
        name: "a level" if "}b:" in name else entry["value"]
        for name, entry in keys.items()
        if name != "hg:replicas" and SLICED not in name
        if "}r:" not in name or name.partition("}r:")[2] in ids
    }
    text = re.sub(r"\b1[78]\d{11}(?:\.0)?\b", "0", json.dumps(plain))
    same: dict[str, Any] = json.loads(text)
    return same


def now(client: "redis.Redis", ids: set[str]) -> dict[str, Any]:
    """The meaning of the state that a Redis has now."""
    return values(state(client)["keys"], ids)


def restore(client: "redis.Redis", keys: dict[str, Any]) -> None:
    """Writes a saved state into an empty Redis."""
    for name, entry in keys.items():
        match entry["kind"]:
            case "string":
                client.set(name, entry["value"])
            case "hash":
                client.hset(name, mapping=entry["value"])
            case "zset":
                client.zadd(name, dict(entry["value"]))
        client.pexpire(name, entry["ttl_ms"])


def replica_of(release: Path) -> str:
    """The name of the replica that was recorded."""
    members = saved(release, "running")["keys"]["hg:replicas"]["value"]
    return str(members[0][0])


async def test_the_same_messages_get_the_same_answers_and_leave_the_same_state(
    release: Path,
) -> None:
    played = events(release / "messages.jsonl")
    ids = reservations(release)
    snapshots = [saved(release, "running"), saved(release, "settled")]
    with running_redis() as server, closing(server.client()) as client:
        async with running_replica(release, server.url, replica_of(release)) as replica:
            for event in played:
                if snapshots and event.at_s > snapshots[0]["at_s"]:
                    assert values(state(client)["keys"], ids) == values(
                        snapshots.pop(0)["keys"], ids
                    )
                await replica.play(event)
            for snapshot in snapshots:
                assert now(client, ids) == values(snapshot["keys"], ids)
    assert Counter(event.method for event in played).keys() == {
        "check",
        "process",
        "should_rate_limit",
        "stream_access_logs",
    }


async def test_a_new_replica_settles_what_an_old_one_has_reserved(release: Path) -> None:
    running, settled = saved(release, "running"), saved(release, "settled")
    later = [event for event in events(release / "messages.jsonl") if event.at_s > running["at_s"]]
    with running_redis() as server, closing(server.client()) as client:
        restore(client, running["keys"])
        async with running_replica(release, server.url, uuid.uuid4().hex) as replica:
            for event in later:
                await replica.play(event)
        ids = reservations(release)
        after, expected = now(client, ids), values(settled["keys"], ids)
    counters = {name for name in expected if "}c:" in name}
    assert {name: after[name] for name in counters} == {name: expected[name] for name in counters}
    assert not [name for name in after if "}l:" in name]


def test_the_policy_means_the_same(release: Path) -> None:
    policy = load_policy(release / "policy.yaml")
    counters = [name for name in saved(release, "settled")["keys"] if "{hg:acme}" in name]
    ids = {limit.id for limit in policy.tenants["acme"].limits}
    named = {name.split(":", 3)[2].partition("/")[0] for name in counters if "}c:" in name}
    assert named | {"requests.minute.smooth.key", "concurrent.user"} == ids


def test_the_usage_records_are_read(release: Path) -> None:
    lines = (release / "usage.jsonl").read_text().splitlines()
    records = Records()
    read = list(records.read(release / "usage.jsonl", lambda _: None))
    assert len(read) == sum('"reservation":"' in line for line in lines)
    assert records.bad == []
