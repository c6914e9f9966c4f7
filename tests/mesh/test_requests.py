"""Identity, limits and metering through a mesh's gateway, as in one box."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from headgate.dataplane.box import BODY_LIMIT_BYTES
from tests.box import KEYS
from tests.mesh.cluster import RunningMesh, running_mesh
from tests.mesh.policies import policy
from tests.patience import wait_until

CHAT = "/v1/chat/completions"


def test_a_request_without_a_key_is_refused_in_openai_shape(mesh: RunningMesh) -> None:
    answer = httpx.post(f"{mesh.url}{CHAT}", json={"model": "llama-8b"})

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "missing_api_key"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/", "/invocations", "/metrics", "/v1/load_lora_adapter"])
def test_other_paths_do_not_exist(mesh: RunningMesh, path: str) -> None:
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    answer = httpx.get(f"{mesh.url}{path}", headers=headers)

    assert answer.status_code in (404, 405)
    assert "error" in answer.json()


def test_a_model_that_is_not_in_the_policy_does_not_exist(mesh: RunningMesh) -> None:
    answer = mesh.chat(model="nobody")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_whole_answer_is_metered_once(mesh: RunningMesh) -> None:
    answer = mesh.chat(max_tokens=7)
    record = mesh.record_of(answer.headers["x-request-id"])
    usage = answer.json()["usage"]

    assert record["prompt_tokens"] == usage["prompt_tokens"]
    assert record["completion_tokens"] == usage["completion_tokens"] == 7
    assert (record["source"], record["user"], record["upstream_status"]) == ("usage", "alice", 200)


def test_a_stream_shows_no_usage_that_was_not_asked_for_and_is_metered(mesh: RunningMesh) -> None:
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key=KEYS["bob"], max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="llama-8b",
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=9,
            stream=True,
        )
        chunks = list(raw.parse())
    record = mesh.record_of(raw.headers["x-request-id"])

    assert not any(chunk.usage for chunk in chunks)
    assert (record["completion_tokens"], record["source"], record["stream"]) == (9, "usage", True)
    assert record["ttft_s"] is not None


def test_a_stream_that_its_client_leaves_is_charged_for_what_came(mesh: RunningMesh) -> None:
    headers = {"authorization": f"Bearer {KEYS['bob']}", "x-simulate": "interval=0.02"}
    body = {"model": "llama-8b", "max_tokens": 4000, "stream": True}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    url = f"{mesh.url}{CHAT}"
    with httpx.stream("POST", url, json=body, headers=headers) as answer:
        lines = answer.iter_lines()
        seen = [next(lines) for _ in range(40)]
        request_id = answer.headers["x-request-id"]
    record = mesh.record_of(request_id)

    events = sum(line.startswith("data: ") for line in seen)
    assert events - 2 <= record["completion_tokens"] < 400
    assert "DC" in record["flags"]


def test_forged_headers_decide_nothing(mesh: RunningMesh) -> None:
    forged = {
        "x-headgate-tenant": "other",
        "x-headgate-base": "nobody",
        "x-headgate-version": "v2",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-request-id": "mine",
    }
    answer = mesh.chat(headers=forged)
    record = mesh.record_of(answer.headers["x-request-id"])

    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != "mine"
    assert (record["tenant"], record["base"]) == ("acme", "llama-8b")


def test_a_body_that_is_too_large_is_refused_in_openai_shape(mesh: RunningMesh) -> None:
    answer = mesh.chat(messages=[{"role": "user", "content": "x" * BODY_LIMIT_BYTES}])

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_an_address_that_keeps_failing_leaves_no_record(mesh: RunningMesh) -> None:
    """The filter of the Telemetry object, in Envoy's CEL. Each of the two replicas allows 30."""
    answers = [httpx.get(f"{mesh.url}/v1/models") for _ in range(150)]
    statuses = [answer.status_code for answer in answers]
    ids = {answer.headers["x-request-id"] for answer in answers if answer.status_code == 429}
    last_known = mesh.chat()
    mesh.record_of(last_known.headers["x-request-id"])

    assert statuses.count(429) >= 20
    assert last_known.status_code == 200
    assert not ids & {record["request_id"] for record in mesh.records()}


def test_without_the_services_every_request_gets_503(mesh: RunningMesh) -> None:
    pods = mesh.pods_named("headgate")
    for pod in pods:
        mesh.processes[pod.name].send_signal(signal.SIGSTOP)
    try:
        answer = mesh.chat()
    finally:
        for pod in pods:
            mesh.processes[pod.name].send_signal(signal.SIGCONT)

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "service_unavailable"
    assert answer.headers["retry-after"] == "1"
    wait_until(lambda: mesh.chat().status_code == 200, "the services")


@pytest.fixture
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder: Path = tmp_path_factory.mktemp("limited")
    limits = "[{count: requests, limit: 5, per: year, each: user}]"
    with running_mesh(folder, policy(limits)) as running:
        yield running


def test_a_limit_holds_over_both_replicas_and_names_itself(limited: RunningMesh) -> None:
    answers = [limited.chat() for _ in range(8)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert answers[0].headers["x-ratelimit-limit-requests"] == "5"
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "4"
    assert answers[-1].headers["x-should-retry"] == "false"
    assert "5 requests per year" in answers[-1].json()["error"]["message"]
    assert limited.chat("bob").status_code == 200
    refused = limited.record_of(answers[-1].headers["x-request-id"])
    assert json.dumps(refused["flags"]) == '["RL"]'
