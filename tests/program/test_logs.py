"""The log is one line for each event, with its time in UTC and the facts of its request."""

import json
import logging
import signal
import sys
from collections.abc import Iterator

import pytest

from headgate.program.logs import JsonFormatter, TextFormatter, configure_logs
from headgate.program.settings import LogFormat, LogLevel, LogSettings

FACTS = {"request_id": "q-1", "tenant": "acme", "status": 503, "trace_id": None, "secret": "no"}


def event(text: str, **facts: object) -> logging.LogRecord:
    record = logging.LogRecord("headgate.x", logging.WARNING, __file__, 1, text, (), None)
    record.created = 1_795_772_000.25
    vars(record).update(facts)
    return record


def test_a_line_of_text_has_time_level_logger_and_facts() -> None:
    assert TextFormatter().format(event("store\nis away", **FACTS)) == (
        "2026-11-27T09:33:20.250Z WARNING headgate.x: store\\nis away"
        " request_id=q-1 tenant=acme status=503"
    )


def test_a_line_of_json_is_one_object() -> None:
    line = JsonFormatter().format(event("store\nis away", **FACTS))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-27T09:33:20.250Z",
        "level": "warning",
        "logger": "headgate.x",
        "message": "store\nis away",
        "request_id": "q-1",
        "tenant": "acme",
        "status": 503,
    }


def test_a_traceback_stays_with_its_event() -> None:
    record = event("it failed")
    try:
        raise ValueError("boom")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: boom" in json.loads(line)["traceback"]


@pytest.fixture
def restored() -> Iterator[None]:
    """The root logger as pytest has it, once the test is over."""
    root, ours = logging.getLogger(), logging.getLogger("headgate")
    levels, handlers = (root.level, ours.level), root.handlers[:]
    usual = signal.getsignal(signal.SIGUSR1)
    root.handlers[:] = []
    yield
    signal.signal(signal.SIGUSR1, usual)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    root.handlers[:] = handlers


@pytest.mark.usefixtures("restored")
def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(LogFormat.JSON, LogLevel.INFO))
    logging.getLogger("headgate").debug("no")
    logging.getLogger("headgate").info("yes")
    logging.getLogger("a_library").info("no")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["yes"]
