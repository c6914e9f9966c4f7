"""A canary in a mesh: Headgate names the version, istiod's routes lead to its pods."""

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.box import KEYS, small_chat
from tests.mesh.cluster import RunningMesh, is_200, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.new_policy import put_policy
from tests.mesh.policies import MODEL, policy
from tests.mesh.traffic import AT_ONCE, by_version, send, served
from tests.patience import wait_until

CONVERSATIONS = 1000


def text(v1: int, v2: int) -> str:
    """The policy with the model in two versions; its clients may choose."""
    versions = f"    versions: {{v1: {{weight: {v1}}}, v2: {{weight: {v2}}}}}\n"
    whole = policy(LIMITS, MODEL + versions)
    return whole.replace("  acme:\n", "  acme:\n    tier: gold\n    chooses_version: true\n")


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder: Path = tmp_path_factory.mktemp("canary")
    with running_mesh(folder, text(90, 10)) as running:
        yield running


def weigh(mesh: RunningMesh, v1: int, v2: int) -> None:
    """Writes other weights into the policy and waits until both replicas have them."""
    put_policy(mesh, text(v1, v2))


def versions_of(mesh: RunningMesh) -> Mapping[str, str]:
    """The version of each conversation's next request, from its usage record."""
    ids = asyncio.run(_send(mesh.url))

    def recorded() -> dict[str, str] | None:
        records = {record["request_id"]: record["version"] for record in mesh.records()}
        return records if ids.keys() <= records.keys() else None

    records = wait_until(recorded, "the records")
    return {conversation: records[request_id] for request_id, conversation in ids.items()}


async def _send(url: str) -> dict[str, str]:
    ids: dict[str, str] = {}
    waiting = iter(range(CONVERSATIONS))
    own = {"authorization": f"Bearer {KEYS['alice']}"}

    async def work(client: httpx.AsyncClient) -> None:
        for number in waiting:
            body = {**small_chat(), "model": "llama-8b", "max_tokens": 1}
            body["prompt_cache_key"] = f"c{number}"
            answer = await client.post(f"{url}/v1/chat/completions", json=body, headers=own)
            assert answer.status_code == 200, answer.text
            ids[answer.headers["x-request-id"]] = f"c{number}"

    async with httpx.AsyncClient() as client:
        await asyncio.gather(*(work(client) for _ in range(AT_ONCE)))
    return ids


def test_no_conversation_changes_its_version_while_weights_go_from_10_to_50(
    canary: RunningMesh,
) -> None:
    """Two replicas decide; the version in the record is that of the pod that answered."""
    before = versions_of(canary)
    weigh(canary, 50, 50)
    after = versions_of(canary)

    assert 60 < list(before.values()).count("v2") < 140
    assert sum(before[user] != after[user] for user in before) == 0


def test_a_restarted_replica_knows_who_is_on_which_version(canary: RunningMesh) -> None:
    weigh(canary, 50, 50)
    before = versions_of(canary)
    for pod in canary.pods_named("headgate"):
        canary.kill(pod.name)
        canary.start_pod(pod)
    for pod in canary.pods_named("headgate"):
        wait_until(partial(is_200, f"http://{pod.ip}:9002/readyz"), pod.name)
    wait_until(lambda: canary.chat().status_code == 200, "the services")

    assert versions_of(canary) == before


def test_a_client_that_may_choose_gets_its_version(canary: RunningMesh) -> None:
    weigh(canary, 100, 0)
    before = served(canary)
    send(canary, ({} for _ in range(50)), **{"x-model-version": "v2"})
    chosen = by_version(before, served(canary))
    unknown = canary.chat(headers={"x-model-version": "v9"})

    assert chosen == {"v1": 0, "v2": 50}
    assert unknown.status_code == 400
    assert "v1, v2" in unknown.json()["error"]["message"]


def test_a_weight_of_0_takes_everybody_back(canary: RunningMesh) -> None:
    weigh(canary, 100, 0)

    assert set(versions_of(canary).values()) == {"v1"}
