"""What a record becomes: exact amounts, the same identity again, and no line that harms."""

import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest

from headgate.ledger.lines import BadLineError, read_line
from headgate.ledger.rows import COLUMNS, row_of
from tests.ledger.builders import line, record

NAMES = [name for name, _ in COLUMNS] + ["user"]


def row(text: bytes) -> dict[str, Any]:
    return dict(zip(NAMES, row_of(read_line(text)), strict=True))


def test_a_request_ends_its_duration_after_its_time_to_the_microsecond() -> None:
    found = row(line(0, time="2026-10-31T23:59:59.900001Z", duration_s=0.1))

    assert found["started_at"] == datetime(2026, 10, 31, 23, 59, 59, 900001, UTC)
    assert found["ended_at"] == datetime(2026, 11, 1, 0, 0, 0, 1, UTC)


def test_cost_is_counted_in_nanos_as_the_record_writes_it() -> None:
    assert (
        row(b'{"time":"2026-10-01T00:00:00Z","duration_s":1,"cost":0.30000000000000001}')[
            "cost_nanos"
        ]
        == 300_000_001
    )  # a record has no such number; one that is finer is rounded up
    assert row(line(0, cost=12))["cost_nanos"] == 12_000_000_000
    assert row(line(0, cost=None))["cost_nanos"] is None


@pytest.mark.parametrize("cost", [-1, 1e13, 9_999_999_999])
def test_a_cost_that_no_row_can_hold_is_a_bad_line(cost: float) -> None:
    with pytest.raises(BadLineError, match="cost"):
        row(line(0, cost=cost))


def test_a_record_of_schema_1_has_unknown_values_where_it_has_no_fields() -> None:
    old = {"time": "2026-09-01T00:00:00.5Z", "tenant": "acme", "duration_s": 2, "flags": ["RL"]}

    found = row(json.dumps(old).encode())

    assert (found["schema"], found["tenant"], found["flags"]) == (1, "acme", ["RL"])
    assert found["ended"] is found["limit"] is found["price_version"] is None


def test_a_record_of_a_refusal_keeps_how_full_the_limit_was() -> None:
    full = {"limit_count": "cost", "limit_most": 10, "limit_used": 9, "limit_asked": 2}

    assert row(line(0, **full)).items() >= full.items()
    assert (
        row(line(0, request_id=None, **full))["request_id"]
        == (row(line(0, request_id=None))["request_id"])
    )


def test_a_record_without_an_id_gets_the_same_one_from_each_replica() -> None:
    one = row(line(0, request_id=None))["request_id"]

    assert one == row(line(0, request_id=None, replica="two"))["request_id"]
    assert one != row(line(0, request_id=None, tenant="lab"))["request_id"]
    assert one.startswith("none:")


def test_a_text_with_nul_is_kept_without_it() -> None:
    assert row(line(0, user_agent="a\0b"))["user_agent"] == "a\ufffdb"


def test_a_very_long_name_is_cut_and_told_apart_by_its_digest() -> None:
    one, two = row(line(0, user="\u20ac" * 900)), row(line(0, user="\u20ac" * 901))

    assert len(one["user"].encode()) < 512
    assert one["user"] != two["user"]


@pytest.mark.parametrize(
    ("text", "address"),
    [("::1", "::1"), ("fe80::1%eth0", "fe80::1"), ("10.0.0.1", "10.0.0.1")],
)
def test_an_address_is_kept_as_one(text: str, address: str) -> None:
    assert row(line(0, ip=text))["ip"] == ip_address(address)


def test_what_is_no_address_is_unknown() -> None:
    assert row(line(0, ip="localhost"))["ip"] is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "is not a usage record"),
        (b"[]", "is not a usage record"),
        (b'{"time":"2026-10-01T00:00:00Z"', "is not a usage record"),
        (b'{"time":null,"duration_s":1}', "is not a usage record"),
        (b'{"time":"2026-10-01T00:00:00","duration_s":1}', "is not a usage record"),
        (b'{"time":"2026-10-01T00:00:00Z","duration_s":-1}', "is not a usage record"),
        (b'{"schema":3,"time":"2026-10-01T00:00:00Z","duration_s":1}', "is not a usage record"),
        (b'{"time":"1970-01-01T00:00:00Z","duration_s":1}', "no time between"),
        (b'{"time":"2099-12-31T23:59:59Z","duration_s":1}', "no time between"),
        (b'{"user":"\xff","time":"2026-10-01T00:00:00Z","duration_s":1}', "is not a usage record"),
        (b"[" * 200_000, "is not a usage record"),
        (b" " * 300_000, "is longer than"),
    ],
)
def test_a_bad_line_says_why_it_is_bad(text: bytes, why: str) -> None:
    with pytest.raises(BadLineError, match=why):
        row_of(read_line(text))


def test_the_columns_are_those_of_every_field_of_a_record() -> None:
    told = {name.removesuffix("_us").removesuffix("_nanos") for name, _ in COLUMNS} | {"user"}
    fields = {name.removesuffix("_s") for name in record(0)} - {"time"}

    assert fields <= told
