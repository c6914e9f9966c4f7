"""docs/errors.md lists every error that a client can get, and what the official clients do."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from headgate.core.apis import ErrorShape
from headgate.core.errors import ApiError, Refusal
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.replies import LocalReply, replies

REPLIES = replies(BODY_LIMIT_BYTES)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text()


def section(title: str) -> str:
    """The text below one heading."""
    parts = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(f"{title}\n"))


def rows(title: str) -> list[list[str]]:
    """The cells of the section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


CODES = {row[0]: row for row in rows("Codes")}
SDKS = rows("What the official Python clients do")


def statuses(code: str) -> set[int]:
    """The statuses that the page gives a code."""
    return {int(word) for word in CODES[code][1].split(", ")}


def test_the_table_has_every_code_and_no_other() -> None:
    real = {refusal.code for refusal in Refusal} | {reply.code for reply in REPLIES}

    assert set(CODES) == real
    assert len(rows("Codes")) == len(CODES), "no code has two rows"


@pytest.mark.parametrize("refusal", Refusal, ids=lambda refusal: refusal.code)
def test_a_refusal_has_its_status_and_types(refusal: Refusal) -> None:
    error = ApiError(refusal, "why")
    openai_type = json.loads(error.body(ErrorShape.OPENAI))["error"]["type"]
    anthropic_type = json.loads(error.body(ErrorShape.ANTHROPIC))["error"]["type"]

    assert refusal.status in statuses(refusal.code)
    assert CODES[refusal.code][2:4] == [openai_type, anthropic_type]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.code)
def test_a_reply_of_envoy_has_its_status_and_types(reply: LocalReply) -> None:
    named = [int(status) for status in re.findall(r"response\.code == (\d+)", reply.when)]
    fixed = [reply.status] if reply.status is not None else named

    assert set(fixed) <= statuses(reply.code)
    assert CODES[reply.code][2:4] == [reply.openai_type, reply.anthropic_type]


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    for row in CODES.values():
        assert len(row) == 6
        assert all(row), row[0]


def test_every_status_of_a_code_is_in_the_table_of_the_clients() -> None:
    known = {int(row[0]) for row in SDKS}

    assert set().union(*(statuses(code) for code in CODES)) == known


def outcome(client: Callable[[httpx2.Client], Any], status: int) -> tuple[str, bool]:
    """The exception that a client raises for a status, and whether it has tried again."""
    calls = 0

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal calls
        calls += 1
        # The clients heed this header of OpenAI's, so that the test need not wait.
        return httpx2.Response(status, headers={"retry-after-ms": "1"}, json={"error": {}})

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as transport,
        pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised,
    ):
        client(transport).models.list()
    return type(raised.value).__name__, calls > 1


@pytest.mark.parametrize("row", SDKS, ids=lambda row: row[0])
def test_the_official_clients_do_what_the_page_says(row: list[str]) -> None:
    status, openai_error, anthropic_error, retried = row
    base = {"api_key": "sk-x", "max_retries": 1}

    def of_openai(transport: httpx2.Client) -> Any:
        return openai.OpenAI(base_url="http://headgate/v1", http_client=transport, **base)

    def of_anthropic(transport: httpx2.Client) -> Any:
        return anthropic.Anthropic(base_url="http://headgate", http_client=transport, **base)

    assert outcome(of_openai, int(status)) == (openai_error, retried == "yes")
    assert outcome(of_anthropic, int(status)) == (anthropic_error, retried == "yes")


@pytest.mark.parametrize("sample", re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL))
def test_every_sample_has_one_of_the_shapes(sample: str) -> None:
    body = json.loads(sample)
    error = body["error"]

    if body.get("type") == "error":
        assert set(error) == {"type", "message"}
    else:
        assert {"message", "type", "param", "code"} <= set(error)
        assert error["code"] in {*CODES, 400}
        assert ("request_id" in error) == (error["code"] in CODES), "vLLM's own have none"
