"""Every error names its request: the body has the id of the header and of the record."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import Upstream

LIMIT = "\n      - {count: requests, limit: 1, per: day}\n"
GONE = """models:
  gone: {upstream: "http://127.0.0.1:9", context_tokens: 8192}
"""
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@pytest.fixture(scope="module", params=HookPath)
def box(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """Alice has used up her tenant's limit, and the server of the model `gone` is away."""
    text = policy(upstream.url, limits=LIMIT).replace("models:\n", GONE, 1)
    text = text.replace("models: [private]", "models: [gone]")
    folder = tmp_path_factory.mktemp("ids")
    options = ("--path", request.param, "--body-limit", "4MiB")
    with running_box(folder, text, *options) as running:
        assert running.chat().status_code == 200
        yield running


def of_model(model: str) -> dict[str, Any]:
    return {**small_chat(), "model": model}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    ("user", "body", "status"),
    [
        pytest.param("nobody", of_model("tiny"), 401, id="identity"),
        pytest.param("carol", {"messages": []}, 400, id="body"),
        pytest.param("carol", of_model("tiny"), 403, id="model"),
        pytest.param("carol", of_model("none"), 404, id="unknown"),
        pytest.param("carol", {**of_model("gone"), "user": "a" * 4_200_000}, 413, id="size"),
        pytest.param("alice", of_model("tiny"), 429, id="limit"),
        pytest.param("carol", of_model("gone"), 503, id="upstream"),
    ],
)
def test_an_error_has_its_request_id_in_the_shape_of_its_api(
    box: Box, path: str, user: str, body: dict[str, Any], status: int
) -> None:
    key = {"authorization": "Bearer sk-unknown"} if user == "nobody" else box.headers(user)
    answer = httpx.post(f"{box.url}{path}", json={"max_tokens": 5, **body}, headers=key)

    assert answer.status_code == status, answer.text
    request_id = answer.headers["x-request-id"]
    error = answer.json() if path == MESSAGES else answer.json()["error"]
    assert error["request_id"] == request_id
    assert box.record_of(request_id)["status"] == status
