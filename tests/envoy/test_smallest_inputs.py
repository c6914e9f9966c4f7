"""The smallest inputs of bug reports, each with the answer that is right. Their kinds: cases.md."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import KEYS, Box, policy, running_box
from tests.envoy.conftest import Upstream

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
BEARER = {"authorization": f"Bearer {KEYS['alice']}"}
ORIGIN = "https://chat.example.org"
HELLO = b'{"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"Hi"}]}'
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST"}
SOCKET = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "AAAA"}


@dataclass(frozen=True, kw_only=True)
class Input:
    """A request, and its right answer. `code` is None if there is no error."""

    point: int
    status: int = 200
    code: str | None = None
    says: str = ""
    method: str = "POST"
    path: str = CHAT
    headers: dict[str, str] = field(default_factory=lambda: {**BEARER, **JSON})
    body: bytes = HELLO


def with_member(member: bytes) -> bytes:
    """The chat with one more member."""
    return HELLO[:-1] + b"," + member + b"}"


def schema(number: int) -> bytes:
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "maximum": number}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    return with_member(b'"tool_choice":"none","tools":[' + json.dumps(tool).encode() + b"]")


def asking(**more: Any) -> dict[str, Any]:
    return {"method": "GET", "body": b"", "headers": BEARER, **more}


BAD = {"status": 400, "code": "invalid_request"}
INPUTS = {
    "a preflight": Input(point=4, status=204, method="OPTIONS", headers=PREFLIGHT, body=b""),
    "an empty key beside a good one": Input(point=5, headers={**BEARER, **JSON, "x-api-key": ""}),
    "a blank bearer beside a good key": Input(
        point=5, headers={**JSON, "x-api-key": KEYS["alice"], "authorization": "Bearer"}
    ),
    "an empty key alone": Input(
        point=5, status=401, code="missing_api_key", headers={**JSON, "api-key": ""}
    ),
    "no body": Input(point=6, **BAD, says="empty", body=b""),
    "no content-type": Input(point=6, **BAD, says="content-type", headers=BEARER),
    "a comma before the end": Input(point=6, **BAD, says="comma", body=HELLO[:-1] + b",}"),
    "half of a surrogate pair": Input(
        point=6, **BAD, says="surrogate", body=HELLO.replace(b"Hi", rb"\ud800")
    ),
    "a body that is said to be compressed": Input(
        point=6,
        status=415,
        code="unsupported_encoding",
        says="gzip",
        headers={**BEARER, **JSON, "content-encoding": "gzip"},
    ),
    "2^63 in a schema": Input(point=7, body=schema(2**63)),
    "2^64 - 1 in a schema": Input(point=7, body=schema(2**64 - 1)),
    "2^64 in a schema": Input(point=7, body=schema(2**64)),
    "an escaped slash in a model's name": Input(point=8, **asking(path="/v1/models/org%2Ftiny")),
    "an escaped slash elsewhere": Input(
        point=8, status=404, code="unknown_path", path="/v1%2Fchat/completions"
    ),
    "a WebSocket": Input(
        point=11,
        status=426,
        code="websocket_not_supported",
        **asking(path="/v1/responses", headers={**BEARER, **SOCKET}),
    ),
    "HEAD": Input(point=14, **asking(path="/v1/models", method="HEAD")),
    "a final slash": Input(point=14, **asking(path="/v1/models/")),
    "/health": Input(point=14, **asking(path="/health", headers={})),
    "prompt_logprobs": Input(
        point=15, **BAD, says="prompt_logprobs", body=with_member(b'"prompt_logprobs":0')
    ),
    "echo of a chat": Input(point=15, **BAD, says="echo", body=with_member(b'"echo":true')),
}


@pytest.fixture(scope="module")
def open_box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with a page's origin, and a model with a slash in its name."""
    text = policy(upstream.url, more=f"cors: {{origins: ['{ORIGIN}']}}\n")
    text = text.replace(
        "  private:\n", "  org/tiny:\n    base: tiny\n    adapter: lora-a\n  private:\n"
    )
    text = text.replace("models: [tiny, sql-expert]", "models: [tiny, sql-expert, org/tiny]")
    with running_box(tmp_path_factory.mktemp("smallest"), text) as box:
        yield box


@pytest.mark.parametrize("name", INPUTS)
def test_the_smallest_input_gets_the_right_answer(open_box: Box, name: str) -> None:
    given = INPUTS[name]
    request = httpx.Request(
        given.method, f"{open_box.url}{given.path}", headers=given.headers, content=given.body
    )
    with httpx.Client(timeout=60) as client:
        answer = client.send(request)

    assert answer.status_code == given.status, answer.text
    if given.code is not None:
        error = answer.json()["error"]
        assert error["code"] == given.code
        assert given.says in error["message"]


def test_every_point_in_the_table_is_a_point_of_the_cases() -> None:
    table = (Path(__file__).parents[1] / "cases.md").read_text()

    for given in INPUTS.values():
        assert f"\n| {given.point} |" in table
