"""The line that `headgate up` prints for each finished request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accesslog.console import ConsoleSink, LimitState, line
from accesslog.meter import meter
from accesslog.types import UsageRecord
from headgate.core.policy import Count, Per
from tests.accesslog.entries import entry, prices_of


@dataclass(frozen=True)
class Limit:
    count: Count
    per: Per | None
    limit: int
    remaining: int


LIMITS = (
    Limit(Count.REQUESTS, Per.MINUTE, 100, 88),
    Limit(Count.TOKENS, Per.DAY, 100_000, 99_924),
)


def record(**changes: Any) -> UsageRecord:
    finished = meter(entry(**changes), prices_of)
    assert finished is not None
    return finished.record


REFUSED: dict[str, Any] = {"admission": {}, "usage": {}, "duration_s": 0.002}
LINES: dict[str, tuple[dict[str, Any], Sequence[LimitState], str]] = {
    "a charged request": (
        {},
        LIMITS,
        "12:03:11 acme/alice llama-8b-sql 200 12+64 tokens (usage) 0.84 s"
        " | left 88 of 100 requests/minute, 99,924 of 100,000 tokens/day",
    ),
    "no limits": ({}, (), "12:03:11 acme/alice llama-8b-sql 200 12+64 tokens (usage) 0.84 s"),
    "requests in flight have no window": (
        {},
        [Limit(Count.CONCURRENT, None, 4, 3)],
        "12:03:11 acme/alice llama-8b-sql 200 12+64 tokens (usage) 0.84 s | left 3 of 4 concurrent",
    ),
    "money": (
        {},
        [Limit(Count.COST, Per.MONTH, 25 * 10**9, 13_200_000)],
        "12:03:11 acme/alice llama-8b-sql 200 12+64 tokens (usage) 0.84 s"
        " | left 0.0132 of 25.00 cost/month",
    ),
    "over a limit": (
        {"status": 429, "details": "request_rate_limited", "usage": {}, "duration_s": 0.004},
        (Limit(Count.REQUESTS, Per.MINUTE, 100, 0),),
        "12:03:11 acme/alice llama-8b-sql 429 request_rate_limited 0.00 s"
        " | left 0 of 100 requests/minute",
    ),
    "no key": (
        {**REFUSED, "status": 401, "details": "ext_authz_denied", "caller": {}, "request": {}},
        (),
        "12:03:11 - /v1/chat/completions 401 ext_authz_denied 0.00 s",
    ),
    "an unknown model": (
        {**REFUSED, "status": 404, "details": "model_not_found", "request": {"model": "gpt"}},
        (),
        "12:03:11 acme/alice gpt 404 model_not_found 0.00 s",
    ),
    "a client that left before any answer": (
        {"status": None, "sent": False, "details": "", "flags": ("DC",), "usage": {}},
        (),
        "12:03:11 acme/alice llama-8b-sql - DC 0.84 s",
    ),
}


@pytest.mark.parametrize(("changes", "limits", "expected"), LINES.values(), ids=LINES.keys())
def test_each_request_has_one_line(
    changes: dict[str, Any], limits: Sequence[LimitState], expected: str
) -> None:
    assert line(record(**changes), limits) == expected


TERMINAL = st.text(alphabet=st.characters(codec="utf-8"), max_size=200)


@given(TERMINAL, TERMINAL, TERMINAL)
def test_no_client_reaches_the_terminals_controls(model: str, path: str, details: str) -> None:
    for request in ({"model": model}, {}):
        fields = {**REFUSED, "request": request, "path": path, "details": details}
        assert line(record(**fields), ()).isprintable()


def test_escape_sequences_and_text_directions_are_shown_as_question_marks() -> None:
    forged = record(**REFUSED, request={"model": "a\x1b[2J\r\n\u202eb\x9b"}, details="x")
    assert line(forged, ()) == "12:03:11 acme/alice a?[2J???b? 200 x 0.00 s"


def test_a_long_name_does_not_flood_the_terminal() -> None:
    assert len(line(record(**REFUSED, request={"model": "m" * 8000}), ())) < 200


def limits_of(reservation: str) -> Sequence[LimitState]:
    return {"r-1": LIMITS}[reservation]


async def test_the_sink_prints_each_record_with_the_limits_of_its_reservation() -> None:
    printed = list[str]()
    await ConsoleSink(printed.append, limits_of).write([record(), record(**REFUSED)])
    (lines,) = printed
    assert [" | left 88 of 100" in text for text in lines.splitlines()] == [True, False]


async def test_a_closed_terminal_stops_nothing() -> None:
    tried = list[str]()

    def say(line: str) -> None:
        tried.append(line)
        raise BrokenPipeError

    sink = ConsoleSink(say, limits_of)
    await sink.write([record(), record()])
    await sink.write([record()])
    assert len(tried) == 2
