"""The official Node clients, as in test_python.py. `make test-clients` installs and runs them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.box import KEYS, Box
from tests.clients.waits import refusals_of, timed_out, use_up
from tests.patience import PATIENCE_S

SCRIPT = Path(__file__).with_name("node") / "ask.js"

pytestmark = pytest.mark.parametrize("library", ["openai", "anthropic"])


def ask(box: Box, library: str, user: str) -> dict[str, Any]:
    """What the caller of the library sees."""
    command = ["node", str(SCRIPT), library, box.url, KEYS[user]]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ}, check=True
    )
    outcome: dict[str, Any] = json.loads(ended.stdout)
    return outcome


def test_a_months_limit_is_an_error_at_once(box: Box, library: str) -> None:
    outcome, refusals = refusals_of(box, lambda: ask(box, library, "alice"))

    assert (outcome["error"], outcome["status"]) == ("RateLimitError", 429)
    assert "1 request per month" in outcome["message"]
    assert refusals == 1


def test_a_short_wait_is_waited_for(box: Box, library: str) -> None:
    use_up(box, "bob")
    outcome, refusals = refusals_of(box, lambda: ask(box, library, "bob"))

    assert outcome == {"error": "ok"}
    assert refusals == 1


def test_an_answer_that_takes_too_long_is_asked_for_once(slow_box: Box, library: str) -> None:
    outcome, records = timed_out(slow_box, lambda: ask(slow_box, library, "alice"))

    assert outcome["status"] == 504
    assert "Set `stream` to true" in outcome["message"]
    assert [record["source"] for record in records] == ["partial"]
