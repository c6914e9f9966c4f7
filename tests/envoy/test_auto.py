"""`auto` through a real Envoy: the model that the size chooses is limited, priced and named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import KEYS, Box, digest, running_box
from tests.envoy.conftest import started_simulator

pytestmark = pytest.mark.simulator  # two of them
SERVED = "org/Large-70B"
LARGE_TEXT = "word " * 400
"""2,000 bytes: above what `small` takes."""
CHAINS = {
    "lean": ("--path", "lean"),
    "standard": ("--path", "standard"),
    "standard, counted in ext_proc": ("--path", "standard", "--counting", "extproc"),
}


def policy(small: str, large: str) -> str:
    return f"""
models:
  small: {{upstream: "{small}", context_tokens: 8192, prices: {{input: 1, output: 1}}}}
  large:
    upstream: "{large}"
    served_as: {SERVED}
    context_tokens: 32768
    prices: {{input: 1000, output: 1000}}
auto:
  small: {{up_to: 600}}
  large: {{}}
tenants:
  acme:
    models: [auto]
    keys: [{{user: alice, sha256: "{digest(KEYS["alice"])}"}}]
  capped:
    models: [auto]
    keys: [{{user: bob, sha256: "{digest(KEYS["bob"])}"}}]
    limits: [{{count: requests, limit: 1, per: year, models: [large]}}]
  frugal:
    models: [auto]
    auto_ceiling: {{input: 1, output: 1}}
    keys: [{{user: carol, sha256: "{digest(KEYS["carol"])}"}}]
"""


@pytest.fixture(scope="module", params=CHAINS)
def auto_box(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with (
        started_simulator("--model", "small") as small,
        started_simulator("--model", SERVED) as large,
    ):
        folder: Path = tmp_path_factory.mktemp("auto")
        with running_box(folder, policy(small, large), *CHAINS[request.param]) as box:
            yield box


def ask(box: Box, text: str = "Hi", user: str = "alice", **fields: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": "auto", "max_tokens": 4, "temperature": 0, "messages": messages, **fields}
    return box.post("/v1/chat/completions", body, user)


@pytest.mark.parametrize(("text", "model"), [("Hi", "small"), (LARGE_TEXT, "large")])
def test_header_answer_and_record_name_the_model_and_the_record_both_names(
    auto_box: Box, text: str, model: str
) -> None:
    answer = ask(auto_box, text)
    record = auto_box.record_of(answer.headers["x-request-id"])

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-headgate-model"] == answer.json()["model"] == model
    assert (record["requested_model"], record["model"]) == ("auto", model)
    tokens = record["prompt_tokens"] + record["completion_tokens"]
    assert record["cost"] == pytest.approx(tokens * {"small": 1, "large": 1000}[model] / 1e6)


@pytest.mark.parametrize(("text", "model"), [("Hi", "small"), (LARGE_TEXT, "large")])
def test_a_stream_names_the_model_too(auto_box: Box, text: str, model: str) -> None:
    answer = ask(auto_box, text, stream=True)

    assert answer.headers["x-headgate-model"] == model
    assert f'"model":{json.dumps(model)}' in answer.text.replace('": "', '":"')
    assert SERVED not in answer.text


def test_a_conversation_with_a_name_goes_only_upward(auto_box: Box) -> None:
    sizes = [
        ask(auto_box, text, prompt_cache_key="talk").headers["x-headgate-model"]
        for text in ("Hi", LARGE_TEXT, "Hi")
    ]

    assert sizes == ["small", "large", "large"]
    assert ask(auto_box, prompt_cache_key="other").headers["x-headgate-model"] == "small"


def test_the_limits_are_those_of_the_chosen_model(auto_box: Box) -> None:
    texts = (LARGE_TEXT, LARGE_TEXT, "Hi")

    assert [ask(auto_box, text, "bob").status_code for text in texts] == [200, 429, 200]


def test_a_ceiling_keeps_a_tenant_on_the_models_below_it(auto_box: Box) -> None:
    assert ask(auto_box, LARGE_TEXT, "carol").json()["model"] == "small"
    listed = httpx.get(f"{auto_box.url}/v1/models", headers=auto_box.headers("carol")).json()
    assert [(entry["id"], entry["max_model_len"]) for entry in listed["data"]] == [("auto", 8192)]


def test_a_client_that_names_a_model_of_auto_itself_needs_its_grant(auto_box: Box) -> None:
    assert ask(auto_box, model="large").status_code == 403
