"""The benches run, small, and tell what they have measured."""

import json
from pathlib import Path

import pytest

from bench import (
    affinity,
    cache,
    counters,
    fairness,
    grpc_server,
    hooks,
    identity,
    keys,
    limits,
    overshoot,
    path,
    placement,
    pod_choice,
    policies,
    registry,
)
from bench.main import run
from bench.table import Table


def test_a_table_is_markdown_for_people_and_values_for_programs() -> None:
    table = Table("Sizes", ("store", "bytes", "time"), [("memory", 12_345, 1.234)], "A note.")

    assert table.markdown().splitlines() == [
        "### Sizes",
        "",
        "A note.",
        "",
        "| store | bytes | time |",
        "| --- | ---: | ---: |",
        "| memory | 12,345 | 1.23 |",
    ]
    assert table.plain() == {
        "title": "Sizes",
        "rows": [{"store": "memory", "bytes": 12_345, "time": 1.234}],
    }


async def test_counters_are_measured_at_each_size_in_both_stores() -> None:
    (table,) = await counters.measure((100, 300), 50)

    assert [row[:2] for row in table.rows] == [
        ("memory", 100),
        ("memory", 300),
        ("Redis", 100),
        ("Redis", 300),
    ]
    assert table.rows[0][3:] == table.rows[2][3:] == (1.0, 1.0, 1.0, 1.0)


async def test_limits_are_measured_in_both_stores() -> None:
    (table,) = await limits.measure((1, 3), 50, 500)

    assert [row[:2] for row in table.rows] == [
        ("memory", 1),
        ("memory", 3),
        ("Redis", 1),
        ("Redis", 3),
    ]
    assert int(table.rows[3][-1]) > int(table.rows[2][-1]) > 100


async def test_policies_are_measured_with_all_their_limits() -> None:
    (table,) = await policies.measure((10,))

    assert table.rows[0][:4] == (10, 200, len(policies.policy_yaml(10)), 1.0)


async def test_a_hit_and_a_miss_are_measured_beside_a_request_without_the_cache() -> None:
    (table,) = await cache.measure(1, 64)

    assert [row[0] for row in table.rows] == list(cache.KINDS)
    assert table.rows[0][-1] == 1.0


async def test_both_paths_are_measured_beside_a_plain_envoy() -> None:
    (table,) = await path.measure(1, 32)

    names = [row[0] for row in table.rows]
    assert names == ["plain", "standard", "lean", "standard, Redis", "lean, Redis"]


async def test_the_choice_of_pods_is_measured_on_both_paths() -> None:
    (table,) = await pod_choice.measure(1, 16)

    ways = ("no pods", "pods", "pods and hashed prompts")
    assert [row[0] for row in table.rows] == [
        f"{each}, {way}" for each in ("standard", "lean") for way in ways
    ]
    assert [row[-2:] for row in table.rows if row[0] == "lean, no pods"] == [(0, 0)]


async def test_every_way_to_call_is_measured() -> None:
    (table,) = await identity.measure(50)

    assert [row[0] for row in table.rows] == [
        "key of the file",
        "key at run time",
        "JWT, remembered",
        "JWT, first seen, RS256",
        "JWT, first seen, ES256",
        "acts_for",
        "acts_for, signed",
    ]
    assert table.rows[0][1] == 1.0


def test_an_overshoot_is_an_error() -> None:
    fits = overshoot.OvershootOutcome({200: 10, 429: 90}, 10_000, 140, 140)
    setup = overshoot.Setup("memory", 1)

    overshoot.check(fits, 100, setup)
    for statuses in ({200: 11, 429: 89}, {200: 9, 429: 91}, {200: 10, 429: 89, 503: 1}):
        wrong = overshoot.OvershootOutcome(statuses, 10_000, 140, 140)
        with pytest.raises(AssertionError):
            overshoot.check(wrong, 100, setup)


def test_benches_run_by_name_and_write_their_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def one() -> list[Table]:
        return [Table("One", ("a",), [("x",)])]

    async def other() -> list[Table]:
        raise AssertionError("not asked for")

    file = tmp_path / "figures.json"
    run({"one": one, "other": other}, ["one", "--json", str(file)])

    assert "| x |" in capsys.readouterr().out
    assert json.loads(file.read_text()) == {"one": [{"title": "One", "rows": [{"a": "x"}]}]}
    with pytest.raises(SystemExit):
        run({"one": one}, ["unknown"])
    assert "there are one" in capsys.readouterr().err


async def test_both_grpc_servers_are_measured_with_one_call_and_with_many() -> None:
    (table,) = await grpc_server.measure(1, 200)

    assert [row[:2] for row in table.rows] == [
        ("own", 1),
        ("grpcio", 1),
        ("own", 16),
        ("grpcio", 16),
    ]


async def test_each_hook_is_measured_with_each_store() -> None:
    (table,) = await hooks.measure(2)

    assert [row[:2] for row in table.rows] == [
        ("check", "memory"),
        ("ext_proc", "memory"),
        ("reserve", "memory"),
        ("settle", "memory"),
        ("drop-in", "memory"),
        ("reserve", "Redis"),
        ("settle", "Redis"),
        ("drop-in", "Redis"),
    ]


async def test_keys_of_the_database_are_measured_at_each_size() -> None:
    (table,) = await keys.measure((50, 100))

    assert [row[0] for row in table.rows] == [50, 100]
    assert table.rows[0][3:] == (1.0, 1.0)


async def test_affinity_is_measured_for_each_way_to_choose_a_pod() -> None:
    (table,) = await affinity.measure(2_000)
    hits = {str(row[0]): int(str(row[1]).rstrip("%")) for row in table.rows}

    assert list(hits) == list(affinity.WAYS)
    assert hits["fewest requests"] < hits["Headgate, bound 150 in the fleet"] < hits["hash"]


async def test_fairness_is_measured_for_each_order_of_the_queue() -> None:
    (table,) = await fairness.measure(1.5)

    assert [row[0] for row in table.rows] == ["by arrival", "tiers", "fair tags"]


async def test_the_registry_is_measured_at_each_size() -> None:
    (table,) = await registry.measure(((100, 20), (200, 40)))

    assert [row[:2] for row in table.rows] == [(100, 20), (200, 40)]
    assert table.rows[0][3] == 1.0


async def test_of_a_simulated_fleet_the_hits_loads_and_moves_are_measured() -> None:
    (table,) = await placement.measure((placement.Case(8, 32, 1.4),), warm_s=60, measured_s=40)

    [(_, found, best, loads, places, by_restart, by_loss)] = table.rows
    assert 0 < int(str(found).rstrip("%")) <= int(str(best).rstrip("%")) + 5
    assert isinstance(loads, int)
    assert (float(places), float(by_restart)) == (8.0, 0.0)
    assert 0 <= float(by_loss) <= 8.0
