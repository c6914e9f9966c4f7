"""The log tells which version of a model answered, and which took no connection."""

import pytest

from accesslog.meter import meter
from accesslog.reached import reached
from headgate.core.contract import AdmissionKey
from tests.accesslog.entries import ADMISSION, START_S, entry, prices_of

OWN = {**ADMISSION, AdmissionKey.VERSION: "main"}
BASE = ADMISSION[AdmissionKey.BASE]


def told(**changes: object) -> list[tuple[str, bool]]:
    logged = entry(**{"admission": OWN, **changes})
    finished = meter(logged, prices_of)
    assert finished is not None
    found = list(reached(logged, finished.record))
    assert all((each.base, each.began_s) == (BASE, pytest.approx(START_S)) for each in found)
    return [(each.version, each.answered) for each in found]


def test_an_answer_tells_that_its_version_answers() -> None:
    assert told(upstream_cluster="model|main|llama-8b") == [("main", True)]


def test_an_answer_of_another_version_tells_that_the_own_one_was_not_reached() -> None:
    assert told(upstream_cluster="model|spot|llama-8b") == [("spot", True), ("main", False)]


@pytest.mark.parametrize("flag", ["UH", "UF"])
def test_a_request_that_no_pod_took_tells_that_its_version_was_not_reached(flag: str) -> None:
    lost = {"upstream_rx_s": None, "status": 503, "flags": (flag,), "usage": {}}

    assert told(**lost) == [("main", False)]
    both = told(**lost, upstream_cluster="model|spot|llama-8b")
    assert both == [("spot", False), ("main", False)]


def test_a_client_that_left_tells_nothing() -> None:
    assert told(upstream_rx_s=None, status=None, flags=("DC",), usage={}) == []


def test_a_model_without_versions_tells_nothing() -> None:
    assert told(admission=ADMISSION) == []
