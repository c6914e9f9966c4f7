"""vLLM knows the models by other names than the clients do: no client sees vLLM's."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headgate.core.contract import Counting
from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import started_simulator

SERVED = "org/Served-8B"
BODIES = {
    "/v1/chat/completions": small_chat(),
    "/v1/completions": {"model": "tiny", "prompt": "Hi", "max_tokens": 4},
    "/v1/responses": {"model": "tiny", "input": "Hi", "max_output_tokens": 4},
    "/v1/messages": small_chat(),
    "/v1/embeddings": {"model": "tiny", "input": "Hi"},
}
STREAMED = [path for path in BODIES if path != "/v1/embeddings"]


@pytest.fixture(scope="module", params=Counting)
def aliased(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """`tiny` is SERVED on vLLM, `sql-expert` is `lora-a`, and vLLM does not have `lora-b`."""
    with started_simulator("--model", SERVED, "--adapter", "lora-a") as upstream:
        text = policy(upstream).replace("    upstream:", f"    served_as: {SERVED}\n    upstream:")
        text = text.replace(
            "  private:\n    base: tiny\n    adapter: lora-a",
            "  private:\n    base: tiny\n    adapter: lora-b",
        )
        folder: Path = tmp_path_factory.mktemp("aliased")
        with running_box(folder, text, "--counting", request.param) as box:
            yield box


@pytest.mark.parametrize("name", ["tiny", "sql-expert"])
@pytest.mark.parametrize("path", BODIES)
def test_a_whole_answer_has_the_name_of_the_policy(aliased: Box, path: str, name: str) -> None:
    answer = aliased.post(path, {**BODIES[path], "model": name})

    assert answer.status_code == 200
    assert answer.json()["model"] == name
    assert SERVED not in answer.text
    assert "lora-a" not in answer.text


@pytest.mark.parametrize("name", ["tiny", "sql-expert"])
@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_has_the_name_of_the_policy(aliased: Box, path: str, name: str) -> None:
    answer = aliased.post(path, {**BODIES[path], "model": name, "stream": True})

    assert answer.status_code == 200
    assert f'"model":{json.dumps(name)}' in answer.text.replace('": "', '":"')
    assert SERVED not in answer.text
    assert "lora-a" not in answer.text


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("stream", [False, True])
def test_a_404_of_vllm_names_the_model_of_the_policy(aliased: Box, path: str, stream: bool) -> None:
    body = {**BODIES[path], "model": "private", "stream": stream}
    answer = aliased.post(path, body, "carol")

    assert answer.status_code == 404
    assert "`private` does not exist" in answer.text
    for name in (SERVED, "lora-a", "lora-b", "Valid aliases"):
        assert name not in answer.text


def test_the_list_of_models_has_the_names_of_the_policy(aliased: Box) -> None:
    models = httpx.get(f"{aliased.url}/v1/models", headers=aliased.headers()).json()["data"]

    assert {model["id"] for model in models} == {"tiny", "sql-expert"}
