"""Trouble behind a page: the reader gets a page that says so, and nobody else pays for it."""

import logging
import re

import pytest

from headgate.ledger import sums
from tests.console.conftest import Console


async def test_a_fault_is_a_page_with_a_number_that_the_log_has(
    console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    async def faulty(_query: object) -> dict[str, int]:
        raise RuntimeError("nobody foresaw this")

    console.set_peek(faulty)
    with caplog.at_level(logging.ERROR, "headgate"):
        answer = await console.get("operator", "/budgets")

    assert answer.status_code == 500
    assert "<nav" in answer.text
    assert "nobody foresaw this" not in answer.text
    [number] = re.findall(r"number ([0-9a-f]{8})", answer.text)
    assert number in caplog.text
    assert "nobody foresaw this" in caplog.text


@pytest.mark.parametrize("path", ["", "/explore", "/keys"])
async def test_sums_that_take_too_long_say_what_to_do(
    console: Console, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(sums, "STATEMENT_S", 0.05)
    monkeypatch.setattr(sums, "_SUMS", f"{sums._SUMS}, count(pg_sleep(9))")

    answer = await console.get("operator", path)

    assert answer.status_code == 422
    assert "takes too long" in answer.text
    assert "<nav" in answer.text


async def test_visits_without_a_session_are_no_failures_to_log_in(console: Console) -> None:
    for _ in range(100):
        answer = await console.ask("nobody", "GET", "/requests")
        assert answer.status_code == 303
    assert (await console.ask("nobody", "POST", "/keys/new")).status_code == 401
    assert (await console.get("token", "/requests")).status_code == 200


async def test_a_dialog_is_led_to_a_whole_page_after_its_change(console: Console) -> None:
    key = await console.issued()
    sent = {"headers": {"hx-request": "true"}}

    answer = await console.ask("admin", "POST", f"/keys/{key}/revoke", **dict(sent))
    gone = await console.ask("nobody", "GET", "/keys/new", **dict(sent))

    assert answer.status_code == 204
    assert answer.headers["hx-redirect"] == "/console/keys?tenant=acme&done=revoked"
    assert gone.headers["hx-redirect"].startswith("/login?to=")
