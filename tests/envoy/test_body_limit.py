"""The largest body passes whole on every path, and a larger one is refused with its limit."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headgate.core.contract import Counting
from headgate.dataplane.box import MAX_BODY_LIMIT_BYTES
from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import LIMITS, Upstream
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module", params=Counting)
def large_box(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("large")
    options = ["--body-limit", "64MiB", "--counting", request.param]
    with running_box(folder, policy(upstream.url, limits=LIMITS), *options) as box:
        yield box


def send(box: Box, size_bytes: int, *, stream: bool) -> httpx.Response:
    """A chat whose body has exactly this size, most of it in a field that costs no tokens."""
    text = json.dumps({**small_chat(), "stream": stream, "user": ""})
    text = text.replace('"user": ""', f'"user": "{"A" * (size_bytes - len(text))}"')
    headers = {**box.headers(), "content-type": "application/json"}
    url = f"{box.url}/v1/chat/completions"
    return httpx.post(url, content=text.encode(), headers=headers, timeout=PATIENCE_S)


@pytest.mark.parametrize("stream", [False, True], ids=["as it is", "rewritten"])
def test_a_body_at_the_highest_limit_passes_whole(large_box: Box, stream: bool) -> None:
    """A stream's body is rewritten: it goes to the service in one message, and comes back."""
    answer = send(large_box, MAX_BODY_LIMIT_BYTES, stream=stream)

    assert answer.status_code == 200, answer.text
    record = large_box.record_of(answer.headers["x-request-id"])
    assert record["request_bytes"] >= MAX_BODY_LIMIT_BYTES
    assert record["source"] == "usage"


def test_a_larger_body_is_told_the_limit_that_is_set(large_box: Box) -> None:
    answer = send(large_box, MAX_BODY_LIMIT_BYTES + 1, stream=True)

    assert answer.status_code == 413
    assert "larger than 64 MiB, the limit of this gateway" in answer.json()["error"]["message"]
