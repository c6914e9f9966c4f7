"""A body that is not read: each cause has its own words."""

import pytest

from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.faults import FAULTS
from extproc.types import Refuse, Value
from headgate.core.errors import ApiError
from headgate.dataplane.filters import reader_source
from tests.door.rig import DOOR
from tests.extproc.builders import facts


def refusal(values: dict[str, Value], path: str = "/v1/chat/completions") -> ApiError:
    decision = decide(facts(values, path), DOOR, Estimator(), "r-1")
    assert isinstance(decision, Refuse)
    return decision.error


def test_each_cause_has_its_own_text() -> None:
    texts = [refusal({"body": "unreadable", "fault": fault}).message for fault in FAULTS]
    assert len(set(texts)) == len(FAULTS) >= 14


@pytest.mark.parametrize("fault", FAULTS)
def test_a_text_names_the_place(fault: str) -> None:
    error = refusal({"body": "unreadable", "fault": fault, "fault_at": 17.0})
    assert error.message == f"{FAULTS[fault]} (at byte 17)"
    assert (error.refusal.status, error.param) == (400, None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/audio/transcriptions"])
def test_a_compressed_body_says_what_to_do(path: str) -> None:
    """Also for a form, and in the words of the client."""
    error = refusal({"body": "unreadable", "fault": "encoding", "encoding": "gzip"}, path)
    assert (error.refusal.status, error.refusal.code) == (415, "unsupported_encoding")
    assert "content-encoding gzip" in error.message
    assert "uncompressed" in error.message


@pytest.mark.parametrize("values", [{"body": "unreadable"}, {"body": "unreadable", "fault": "new"}])
def test_an_older_or_a_newer_reader_gets_the_general_text(values: dict[str, Value]) -> None:
    assert "not a JSON object, or" in refusal(values).message


def test_every_fault_of_the_reader_has_a_text() -> None:
    source = reader_source()
    assert [fault for fault in FAULTS if f'"{fault}"' not in source] == []
