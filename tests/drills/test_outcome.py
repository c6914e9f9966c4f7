"""What a drill finds wrong with the messages that came, without playing one."""

from dataclasses import replace

import pytest

from tests.drills.pager import Message, Pager
from tests.drills.run import Outcome
from tests.drills.table import row


def message(name: str, **labels: str) -> Message:
    return Message(0.0, "page", tuple(sorted({"alertname": name, **labels}.items())))


RIGHT = message("HeadgateUpstreamDead", model="tiny", version="v2")
GOOD = Outcome(
    name="dead-version", before=frozenset(), pages=((40.0, RIGHT),), tickets=(), resolved_s=30.0
)


def test_one_page_with_the_cause_within_a_minute_is_right() -> None:
    assert GOOD.problems == []


@pytest.mark.parametrize(
    "change",
    [
        {"pages": ()},
        {"pages": ((61.0, RIGHT),)},
        {"pages": ((40.0, message("HeadgateUpstreamDead", model="tiny", version="v1")),)},
        {"pages": ((40.0, RIGHT), (300.0, message("HeadgateErrorBudget", model="tiny")))},
        {"before": frozenset({"HeadgateDown"})},
        {"resolved_s": None},
    ],
)
def test_anything_else_is_a_problem(change: dict[str, object]) -> None:
    assert len(replace(GOOD, **change).problems) == 1  # type: ignore[arg-type]


def test_nobody_may_be_paged_where_nobody_must_be() -> None:
    quiet = replace(GOOD, name="store-pause")

    assert quiet.problems == ["page HeadgateUpstreamDead besides"]


def test_the_pager_keeps_the_first_message_of_an_alert() -> None:
    pager = Pager()
    alert = {"status": "firing", "labels": {"alertname": "HeadgateDown"}}
    for _ in range(2):
        pager.take("page", {"alerts": [alert]})
    pager.take("page", {"alerts": [{**alert, "status": "resolved"}]})

    assert [message.label("alertname") for message in pager.got("page")] == ["HeadgateDown"]


def test_the_table_has_the_longest_times_of_all_rounds() -> None:
    slow = replace(GOOD, pages=((50.0, RIGHT),), resolved_s=20.0)

    cells = [cell.strip() for cell in row([GOOD, slow]).split("|")]

    assert cells[2:6] == [
        "page `HeadgateUpstreamDead`",
        "50 s",
        "30 s",
        "no connection to vLLM, tiny, v2",
    ]
