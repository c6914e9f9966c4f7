"""Headgate chooses the pod, behind the real istiod: the first of its list, or the next one."""

import json
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from headgate.core.rendezvous import ordered
from tests.mesh.cluster import ISTIO, RunningMesh, is_200, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.new_policy import put_policy
from tests.mesh.policies import MODEL, policy
from tests.patience import wait_until

CLUSTER = "cluster.outbound|8000|v1|llama-8b.vllm.svc.cluster.local"
CONVERSATIONS = [f"c{number}" for number in range(24)]


def text(pods: tuple[str, ...]) -> str:
    """The policy with these pods of the version v1, which takes every request."""
    version = "weight: 100" + (f", pods: {json.dumps(pods)}" if pods else "")
    return policy(LIMITS, f"{MODEL}    versions: {{v1: {{{version}}}}}\n")


@pytest.fixture(scope="module", params=["gateway", "lean"])
def placed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMesh]:
    folder: Path = tmp_path_factory.mktemp(f"placed-{request.param}")
    components = ["placement"] if request.param == "gateway" else ["lean", "placement"]
    listed = ", ".join(f"{ISTIO}/components/{name}" for name in components)
    (folder / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/staging]\ncomponents: [{listed}]\n"
    )
    with running_mesh(folder, text(()), overlay=folder) as mesh:
        name_pods(mesh)
        yield mesh


def addresses(mesh: RunningMesh) -> tuple[str, ...]:
    return tuple(f"{pod.ip}:8000" for pod in mesh.pods_named("llama-8b-v1"))


def name_pods(mesh: RunningMesh) -> None:
    """Writes the pods into the policy, as DNS is not there, and waits until both replicas know."""
    put_policy(mesh, text(addresses(mesh)))


def wanted(mesh: RunningMesh, conversation: str) -> tuple[str, ...]:
    """The pods that a conversation of acme should have, the first one first."""
    key = sha256(f"acme\0{conversation}".encode()).hexdigest()[:32]
    return ordered(f"acme\0{key}", addresses(mesh))


def served(mesh: RunningMesh, conversation: str) -> str:
    """The pod that answers the conversation's next request, from its record."""
    answer = mesh.chat(prompt_cache_key=conversation, max_tokens=1)
    assert answer.status_code == 200, answer.text
    return str(mesh.record_of(answer.headers["x-request-id"])["pod"])


def test_envoy_takes_what_istiod_sends_and_each_conversation_has_its_pod(
    placed: RunningMesh,
) -> None:
    found = {conversation: served(placed, conversation) for conversation in CONVERSATIONS}

    assert found == {each: wanted(placed, each)[0] for each in CONVERSATIONS}
    assert set(found.values()) == set(addresses(placed))
    rejected = {name: count for name, count in placed.stats().items() if "_rejected" in name}
    assert not any(rejected.values()), rejected


def test_retries_go_down_the_list_in_its_order(placed: RunningMesh) -> None:
    """The first two pods refuse the connection. They fail once, so none is ejected."""
    first, _second, third = wanted(placed, CONVERSATIONS[0])
    down = [pod for pod in placed.pods_named("llama-8b-v1") if f"{pod.ip}:8000" != third]
    for pod in down:
        placed.kill(pod.name)
    answer = placed.chat(prompt_cache_key=CONVERSATIONS[0], max_tokens=1)
    record = placed.record_of(answer.headers["x-request-id"])
    for pod in down:
        placed.start_pod(pod)
    for pod in down:
        wait_until(partial(is_200, f"http://{pod.ip}:8000/health"), pod.name)

    assert (answer.status_code, record["pod"], record["attempts"]) == (200, third, 3)
    assert served(placed, CONVERSATIONS[0]) == first


def test_a_pod_that_leaves_moves_its_own_conversations_to_their_next_pod(
    placed: RunningMesh,
) -> None:
    """First its endpoint is still there and refuses connections, and then it is gone."""
    dead = placed.pods_named("llama-8b-v1")[0]
    gone = f"{dead.ip}:8000"
    expected = {
        each: next(pod for pod in wanted(placed, each) if pod != gone) for each in CONVERSATIONS
    }
    placed.kill(dead.name)
    dead.ready = False

    while_listed = {each: served(placed, each) for each in CONVERSATIONS}
    placed.publish()
    wait_until(lambda: f"::{gone}::" not in placed.admin("/clusters"), "the endpoint's end")
    afterwards = {each: served(placed, each) for each in CONVERSATIONS}

    assert while_listed == expected
    assert afterwards == expected


def test_envoy_refuses_failover_between_regions_beside_it(placed: RunningMesh) -> None:
    """The rule `placement-conflict` of the check finds this before it is applied."""
    rule = placed.changed("DestinationRule", "llama-8b")
    failover = {"enabled": True, "failover": [{"from": "here", "to": "there"}]}
    rule["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"] = failover
    placed.apply(rule)

    wait_until(
        lambda: placed.stats()["cluster_manager.cds.update_rejected"], "the refusal of Envoy"
    )
