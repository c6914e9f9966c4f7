"""Usage records read back: requests, records without one, and bad lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accesslog.types import UsageRecord
from headgate.core.errors import OperatorError
from headgate.replay.records import MAX_LINE_BYTES, Records, UsageLine, in_time_order, read_record
from ratelimit.replay import Recorded, Used

RECORD: dict[str, Any] = {
    "time": "2027-01-15T08:00:00.250000Z",
    "request_id": "x",
    "reservation": "r1",
    "tenant": "acme",
    "user": "alice",
    "key": "k1",
    "model": "tiny",
    "flags": [],
    "prompt_tokens": 50,
    "completion_tokens": 10,
    "cached_tokens": 16,
    "estimated_tokens": 100,
    "estimated_prompt_tokens": 40,
    "source": "usage",
    "duration_s": 1.5,
}
REFUSED = {"flags": ["RL"], "source": "refund", "prompt_tokens": 0, "completion_tokens": 0}


def line(**changes: object) -> bytes:
    return json.dumps({**RECORD, **changes}).encode() + b"\n"


def read(path: Path) -> tuple[list[Recorded], Records, int]:
    seen = 0

    def on_bytes(count: int) -> None:
        nonlocal seen
        seen += count

    records = Records()
    return list(records.read(path, on_bytes)), records, seen


def test_a_record_is_a_request_with_its_times_and_tokens() -> None:
    assert read_record(line()) == Recorded(
        start_s=1_800_000_000.25,
        reservation="r1",
        end_s=1_800_000_001.75,
        tenant="acme",
        user="alice",
        key="k1",
        model="tiny",
        estimate=100,
        estimate_prompt=40,
        used=Used(50, 16, 10),
        refused=False,
    )


def test_every_field_that_is_read_is_one_that_is_written() -> None:
    read = {field.name for field in msgspec.structs.fields(UsageLine)}

    assert read <= set(UsageRecord.__struct_fields__)


def test_a_record_of_an_earlier_release_does_not_know_the_prompts_part() -> None:
    older = json.loads(line())
    del older["estimated_prompt_tokens"]
    request = read_record(json.dumps(older).encode())
    odd = read_record(line(estimated_prompt_tokens=101))

    assert request is not None
    assert odd is not None
    assert (request.estimate, request.estimate_prompt) == (100, None)
    assert odd.estimate_prompt is None


def test_what_was_given_back_or_refused_by_a_limit_has_used_nothing() -> None:
    refund = read_record(line(source="refund", prompt_tokens=0, completion_tokens=0))
    refused = read_record(line(**REFUSED))

    assert refund is not None
    assert refused is not None
    assert (refund.used, refund.refused) == (None, False)
    assert (refused.used, refused.refused) == (None, True)


def test_what_never_came_to_the_limits_is_no_request() -> None:
    nothing = dict.fromkeys(("reservation", "tenant", "user", "key", "model", "estimated_tokens"))

    assert read_record(line(**nothing, source=None)) is None


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_may_be_packed_and_bad_lines_are_named_and_left_out(
    tmp_path: Path, pack: Any
) -> None:
    path = tmp_path / "usage"
    bad = [
        b"not json\n",
        b"[]\n",
        b"{}\n",
        line(duration_s=-1),
        line(duration_s="1"),
        line(time="yesterday"),
        line(time="2027-01-15T08:00:00"),
        line(time=None),
        line(time="1999-12-31T23:59:59Z"),
        line(time="2100-01-01T00:00:00Z"),
        line(tenant=None),
        line(estimated_tokens=None),
        line(estimated_tokens=10**30),
        line(source="guess"),
        b'{"time": "\xff"}\n',
        b"[" * 100_000 + b"\n",
        line(user="x" * MAX_LINE_BYTES),
        line()[:-20],
    ]
    data = line() + b"\n".join([b"", *bad[:-1]]) + line(reservation="r2") + bad[-1]
    path.write_bytes(pack(data))

    requests, records, seen = read(path)

    assert [request.reservation for request in requests] == ["r1", "r2"]
    assert (records.requests, records.bad_lines) == (2, len(bad))
    assert len(records.bad) == 10
    assert records.bad[0].startswith(f"{path}:3: is not a usage record: ")
    assert all(named.isprintable() and len(named) < 500 for named in records.bad)
    assert seen == path.stat().st_size


def test_gzip_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "usage.gz"
    path.write_bytes(gzip.compress(line() * 3)[:-4])

    requests, records, _ = read(path)

    assert len(requests) == 3
    assert records.bad == [f"{path}:4: the gzip data is broken from here on"]


def test_a_file_that_cannot_be_read_is_the_operators_mistake(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot read usage records of"):
        read(tmp_path / "nothing")
    with pytest.raises(OperatorError, match="cannot read usage records of"):
        read(tmp_path)


@given(
    starts=st.lists(st.integers(0, 20), max_size=60), run_length=st.sampled_from([1, 2, 7, 1000])
)
def test_any_order_becomes_the_order_of_time(starts: list[int], run_length: int) -> None:
    requests = [
        Recorded(start + 0.1, f"é{number}\n", start + 1, "t", "u", "k", "m", 5, None, None, False)
        for number, start in enumerate(starts)
    ]
    with in_time_order(iter(requests), run_length) as ordered:
        assert list(ordered) == sorted(requests, key=lambda request: request.order)
