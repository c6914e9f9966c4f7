"""A soak finds what does not agree: its rules can fail."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.faults import QUIET_S, plan
from tests.soak.kinds import KINDS, Caller, Kind
from tests.soak.ledger import Account, Records
from tests.soak.load import Sent
from tests.soak.watch import Sample, memory

ANN = Caller("acme", "ann")
BY_NAME = {kind.name: kind for kind in KINDS}
Lines = list[dict[str, object]]


def answered(number: int, kind: Kind, events: int = 0) -> Sent:
    at_s = 100.0 + number
    sent = Sent(kind, ANN, at_s, at_s + 0.5, 200, f"id-{number}", events)
    sent.whole = kind.ending == "complete"
    return sent


def record(number: int, kind: Kind, completion: int) -> dict[str, object]:
    return {
        "path": kind.path,
        "request_id": f"id-{number}",
        "tenant": "acme",
        "user": "ann",
        "model": kind.body["model"],
        "status": 200,
        "source": "usage",
        "prompt_tokens": 10,
        "completion_tokens": completion,
        "choices": 1,
        "estimated_tokens": 40,
        "flags": [],
        "details": "via_upstream",
    }


SENT = [
    answered(0, BY_NAME["plain"]),
    answered(1, BY_NAME["stream"], 8),
    answered(2, BY_NAME["client leaves"], 7),
]
LINES = [
    record(0, BY_NAME["plain"], 4),
    record(1, BY_NAME["stream"], 6),
    record(2, BY_NAME["client leaves"], 6),
]
STEADY_COUNT = {"prompt": 20, "generation": 10}


def account(folder: Path, lines: Lines, kills: list[tuple[float, float]] | None = None) -> Account:
    path = folder / "usage.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Account(SENT, Records.read([path]), kills or [])


def broken_rules(compared: Account) -> set[str]:
    steady, torn = compared.steady(STEADY_COUNT), compared.torn({"generation": 9})
    findings = [*compared.findings(), steady, torn]
    return {found.rule for found in findings if not found.holds}


def test_accounts_that_agree_break_no_rule(tmp_path: Path) -> None:
    compared = account(tmp_path, LINES)

    assert broken_rules(compared) == set()
    assert compared.spans() == {(ANN, "requests"): (3, 3), (ANN, "tokens"): (46, 46)}


def without_the_last(lines: Lines) -> Lines:
    return lines[:-1]


def with_the_first_twice(lines: Lines) -> Lines:
    return [*lines, lines[0]]


def charged_too_much(lines: Lines) -> Lines:
    return [*lines[:-1], {**lines[-1], "completion_tokens": 26}]


def charged_too_little(lines: Lines) -> Lines:
    return [lines[0], {**lines[1], "completion_tokens": 5}, lines[2]]


@pytest.mark.parametrize(
    ("spoilt", "rule"),
    [
        (without_the_last, "one usage record for each request"),
        (with_the_first_twice, "one usage record for each request"),
        (charged_too_much, "each record is what the client saw"),
        (charged_too_much, "records of broken answers: what came, at most what was generated"),
        (charged_too_little, "records of complete answers = the upstream's count"),
    ],
)
def test_accounts_that_differ_break_a_rule(
    tmp_path: Path, spoilt: Callable[[Lines], Lines], rule: str
) -> None:
    assert rule in broken_rules(account(tmp_path, spoilt(LINES)))


def test_only_near_a_kill_may_a_record_be_lost(tmp_path: Path) -> None:
    near = account(tmp_path, without_the_last(LINES), kills=[(104.0, 105.0)])
    far = account(tmp_path, without_the_last(LINES), kills=[(204.0, 205.0)])

    assert broken_rules(near) == set()
    assert broken_rules(far) == {"one usage record for each request"}


def test_a_request_whose_record_is_lost_may_stay_charged_at_its_estimate(tmp_path: Path) -> None:
    """On the lean path the log entry settles. The estimate may be above the usage, or below."""
    kind = BY_NAME["responses"]
    lines = [{**record(number, kind, 5), "estimated_tokens": 7 + number} for number in range(2)]
    path = tmp_path / "usage.jsonl"
    path.write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1]) + "\n")
    sent = [answered(number, kind, 8) for number in range(3)]

    spans = Account(sent, Records.read([path]), [(104.0, 105.0)]).spans()

    assert spans == {(ANN, "requests"): (3, 3), (ANN, "tokens"): (30 + 7, 30 + 15)}


def test_half_a_line_of_a_killed_replica_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    path.write_text(json.dumps(LINES[0]) + '\n{"time": "20\n' + json.dumps(LINES[1]) + "\n")

    records = Records.read([path])

    assert (len(records.by_id), records.torn) == (2, 1)


def test_memory_is_judged_by_the_last_two_thirds() -> None:
    grows = [Sample(float(at_s), 100 + at_s, 0, 0.0) for at_s in range(30)]

    found = memory(grows, 0, 30)

    assert found is not None
    assert found.growth == pytest.approx(10 / 114.5)
    assert memory(grows[20:], 0, 30) is None


def test_a_seed_is_a_schedule_and_the_first_replica_is_never_killed() -> None:
    faults = list(plan(7, 600, replicas=3))

    assert faults == list(plan(7, 600, replicas=3))
    assert {fault.fault for fault in faults} == {"kill", "flush"}
    assert {fault.replica for fault in faults} == {2, 3}
    assert all(QUIET_S <= fault.at_s < 600 - QUIET_S for fault in faults)
