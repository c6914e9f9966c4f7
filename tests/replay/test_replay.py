"""`headgate replay`: a small file, checked by hand."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.cli import cli
from headgate.core.errors import OperatorError
from tests.replay.test_records import REFUSED, line

POLICY = """\
models:
  tiny: {upstream: "http://127.0.0.1:8000", context_tokens: 8192}
tenants:
  acme:
    models: [tiny]
    keys:
      - {user: alice, sha256: "a11ce00000000000000000000000000000000000000000000000000000000000"}
      - {user: bob, sha256: "b0b0000000000000000000000000000000000000000000000000000000000000"}
    limits:
      - {count: requests, limit: 2, per: minute, each: user}
      - {count: tokens, limit: 300, per: day}
"""


def at(second: int, **changes: object) -> bytes:
    time = f"2027-01-15T08:{second // 60:02}:{second % 60:02}Z"
    return line(time=time, reservation=f"r{second}", **changes)


# In the order of their ends, as they are written. Each holds 100 tokens and is charged 60.
RECORDS = [
    at(1),
    at(2),
    at(3),  # alice's third in this minute: refused
    at(4, **REFUSED, user="bob"),  # was refused, passes: 120 spent and 100 held
    at(6, user="bob"),  # 220 spent: another 100 are too many for the day
    at(0, user="bob", tenant="closed"),
    at(8, user="carol"),
    at(7, model="retired"),
    line(reservation=None),
    b"torn\n",
]


def replay(tmp_path: Path, *options: str, records: bytes = b"".join(RECORDS)) -> Result:
    (tmp_path / "new.yaml").write_text(POLICY)
    (tmp_path / "usage.jsonl").write_bytes(records)
    files = ["--records", str(tmp_path / "usage.jsonl"), "--policy", str(tmp_path / "new.yaml")]
    return CliRunner().invoke(cli, ["replay", *files, *options])


def test_the_table_shows_refusals_by_limit_and_the_records_left_out(tmp_path: Path) -> None:
    shown = replay(tmp_path)

    assert shown.exit_code == 0
    assert shown.stdout == (
        "5 requests, 2 would be refused (40.0%); 1 were when recorded\n"
        "\n"
        "tenant  user   model  requests  would be refused  share  by which limit\n"
        "acme    alice  tiny          3                 1  33.3%"
        "  2 requests per minute for each user: 1\n"
        "acme    bob    tiny          2                 1  50.0%  300 tokens per day: 1\n"
        "\n"
        "1 requests not replayed: the policy has no such tenant\n"
        "1 requests not replayed: no key of that user in the policy\n"
        "1 requests not replayed: the tenant may not use that model\n"
        "1 records never came to the limits: refused before, or lists\n"
        "1 lines are no usage records and were left out\n"
    )
    assert shown.stderr.startswith(f"headgate: {tmp_path}/usage.jsonl:10: is not a usage record")


def test_json_says_the_same(tmp_path: Path) -> None:
    report = json.loads(replay(tmp_path, "--format", "json").stdout)

    bad = report.pop("bad")
    assert [text.partition(": ")[0] for text in bad] == [f"{tmp_path}/usage.jsonl:10"]
    alice, bob = report.pop("rows")
    assert report == {
        "requests": 5,
        "refused": 2,
        "share": 0.4,
        "refused_when_recorded": 1,
        "gone": {"tenant": 1, "user": 1, "model": 1},
        "repeated": 0,
        "never_at_limits": 1,
        "bad_lines": 1,
    }
    assert (alice["user"], alice["requests"], alice["refused"], alice["share"]) == (
        "alice",
        3,
        1,
        0.333333,
    )
    assert alice["limits"] == [
        {
            "id": "requests.minute.user",
            "limit": "2 requests per minute for each user",
            "refused": 1,
        }
    ]
    assert (bob["user"], bob["refused"], bob["refused_when_recorded"]) == ("bob", 1, 1)


def test_several_files_packed_or_not_in_any_order_are_one_run(tmp_path: Path) -> None:
    packed = tmp_path / "older.jsonl.gz"
    packed.write_bytes(gzip.compress(b"".join(RECORDS[:3])))

    both = replay(tmp_path, "--records", str(packed), records=b"".join(RECORDS[1:]))
    whole = replay(tmp_path)

    assert "2 records are there more than once" in both.stdout
    assert both.stdout.splitlines()[:5] == whole.stdout.splitlines()[:5]


def test_limits_of_cost_take_the_prices_of_the_policy_to_try(tmp_path: Path) -> None:
    prices = "prices: {input: 10, cached_input: 1, output: 100}"
    cost = "{count: cost, limit: 0.008, per: day, users: [alice]}"
    text = POLICY.replace("8192}", f"8192, {prices}}}")
    path = tmp_path / "cost.yaml"
    path.write_text(text[: text.index("      - {count: requests")] + f"      - {cost}\n")
    # Each holds 40 x 10 + 60 x 100 millionths and is charged 34 x 10 + 16 x 1 + 10 x 100.
    records = b"".join(at(second, cost=9) for second in (0, 2, 4, 6))

    shown = replay(tmp_path, "--policy", str(path), records=records)

    assert "0.008 of cost per day, users alice: 2" in shown.stdout


def test_nothing_to_replay_is_no_error(tmp_path: Path) -> None:
    shown = replay(tmp_path, records=b"")

    assert shown.exit_code == 0
    assert shown.stdout == "0 requests, 0 would be refused (0.0%); 0 were when recorded\n"


def test_a_bad_policy_or_a_file_that_is_not_there_ends_it(tmp_path: Path) -> None:
    missing = replay(tmp_path, "--records", str(tmp_path / "nowhere.jsonl"))
    bad = replay(tmp_path, "--policy", str(tmp_path / "usage.jsonl"))

    assert isinstance(missing.exception, OperatorError)
    assert str(tmp_path / "nowhere.jsonl") in str(missing.exception)
    assert isinstance(bad.exception, OperatorError)


@pytest.mark.parametrize("form", ["table", "json"])
def test_standard_output_holds_the_answer_alone(tmp_path: Path, form: str) -> None:
    """Progress is for a terminal."""
    assert "reading" not in replay(tmp_path, "--format", form).output
