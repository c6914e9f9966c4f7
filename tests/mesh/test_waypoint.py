"""Headgate chooses the pod at a waypoint of ambient mode, behind the real istiod."""

import json
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.rendezvous import ordered
from tests.box import KEYS, small_chat
from tests.mesh.agent import Agent
from tests.mesh.ambient import (
    AMBIENT_ENV,
    REDIRECTED,
    Ambient,
    announce,
    fit_plain_envoy,
    gateway_api,
    give_addresses,
    start_caller,
    start_node,
    start_waypoint,
    waypoint_of,
)
from tests.mesh.cluster import is_200, prepared_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.kube_api import Object
from tests.mesh.machine import ISTIO
from tests.mesh.new_policy import put_policy
from tests.mesh.policies import MODEL, policy
from tests.mesh.sidecars import DROPPED
from tests.mesh.ztunnel import TUNNEL_PORT
from tests.patience import PATIENCE_S, wait_until

CLUSTER = "outbound|8000||llama-8b.vllm.svc.cluster.local"
CONVERSATIONS = [f"c{number}" for number in range(16)]


def few(objects: list[Object]) -> list[Object]:
    """One pod of the services and three of the model."""
    kept = [each for each in objects if each["kind"] not in DROPPED]
    numbers = {"headgate": 1, "llama-8b-v1": 3, "llama-8b-v2": 0}
    for each in kept:
        if each["kind"] == "Deployment":
            each["spec"]["replicas"] = numbers[each["metadata"]["name"]]
    return kept


def text(pods: tuple[str, ...]) -> str:
    return policy(LIMITS, f"{MODEL}    pods: {json.dumps(pods)}\n" if pods else MODEL)


@pytest.fixture(scope="module")
def ambient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ambient]:
    folder: Path = tmp_path_factory.mktemp("ambient")
    overlay = folder / "overlay"
    overlay.mkdir()
    resources = ", ".join(
        f"{ISTIO}/{name}" for name in ("base", "models/namespace", "models/llama-8b")
    )
    components = ", ".join(
        f"{ISTIO}/components/{name}" for name in ("waypoint", "placement-waypoint")
    )
    (overlay / "kustomization.yaml").write_text(
        f"resources: [{resources}]\ncomponents: [{components}]\n"
    )
    with prepared_mesh(folder, text(()), overlay, few) as mesh:
        mesh.agent = Agent()
        mesh.api.apply(*gateway_api())
        mesh.start_pods({})
        waypoint = waypoint_of(mesh)
        give_addresses(mesh)
        announce(mesh)
        for pod in mesh.pods:
            pod.door_ip = ""
            pod.annotations = {} if pod is waypoint else REDIRECTED
        mesh.apply(fit_plain_envoy(waypoint))
        mesh.publish()
        mesh.start_istiod(AMBIENT_ENV)
        start_node(mesh, "headgate/headgate", mesh.pods_named("headgate"))
        start_node(mesh, "vllm/llama-8b", mesh.pods_named("llama-8b"))
        admin = start_waypoint(mesh, waypoint)
        door = start_caller(mesh, waypoint, "llama-8b")
        running = Ambient(mesh, admin, door)
        wait_until(lambda: chat(running, "first").status_code == 200, "the waypoint's answer")
        yield running


def chat(ambient: Ambient, conversation: str) -> httpx.Response:
    body: dict[str, Any] = {**small_chat(), "model": "llama-8b", "max_tokens": 1}
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    url = f"{ambient.url}/v1/chat/completions"
    return httpx.post(url, json={**body, "prompt_cache_key": conversation}, headers=headers)


def addresses(ambient: Ambient) -> tuple[str, ...]:
    return tuple(f"{pod.ip}:8000" for pod in ambient.mesh.pods_named("llama-8b"))


@pytest.fixture(scope="module")
def placed(ambient: Ambient) -> Ambient:
    """The pods are in the policy, as DNS is not there, and the services know them."""
    put_policy(ambient.mesh, text(addresses(ambient)))
    return ambient


def wanted(ambient: Ambient, conversation: str) -> tuple[str, ...]:
    """The pods that a conversation of acme should have, the first one first."""
    key = sha256(f"acme\0{conversation}".encode()).hexdigest()[:32]
    return ordered(f"acme\0{key}", addresses(ambient))


def served(ambient: Ambient, conversation: str) -> str:
    """The pod that answers the conversation's next request, from its record."""
    answer = chat(ambient, conversation)
    assert answer.status_code == 200, answer.text
    return str(ambient.mesh.record_of(answer.headers["x-request-id"])["pod"])


def test_a_waypoint_sends_each_conversation_to_its_pod_through_the_tunnel(placed: Ambient) -> None:
    found = {conversation: served(placed, conversation) for conversation in CONVERSATIONS}

    assert found == {each: wanted(placed, each)[0] for each in CONVERSATIONS}
    assert len(set(found.values())) == 3


def test_a_pod_that_is_dead_but_listed_costs_its_conversations_their_requests(
    placed: Ambient,
) -> None:
    """The tunnel to a pod opens before its program answers, so Envoy sees no failed connection."""
    dead = placed.mesh.pods_named("llama-8b-v1")[1]
    first = [each for each in CONVERSATIONS if wanted(placed, each)[0] == f"{dead.ip}:8000"]
    before = len(placed.mesh.records())
    placed.mesh.kill(dead.name)

    answers = {each: chat(placed, each) for each in CONVERSATIONS}

    codes = {each: answer.status_code for each, answer in answers.items()}
    assert codes == {each: 503 if each in first else 200 for each in CONVERSATIONS}
    placed.mesh.start_pod(dead)
    wait_until(lambda: is_200(f"http://{dead.ip}:8000/health"), "the pod")
    expected = {answer.headers["x-request-id"] for answer in answers.values()}
    assert recorded(placed, before) == expected


def recorded(ambient: Ambient, before: int) -> set[str | None]:
    """The ids in the records after the first `before`: one more request ends them."""
    served(ambient, CONVERSATIONS[0])
    *records, _ = ambient.mesh.records()[before:]
    ids = [record["request_id"] for record in records]
    assert len(ids) == len(set(ids))
    return set(ids)


def test_a_tunnel_that_the_waypoint_refuses_leaves_no_record(placed: Ambient) -> None:
    """It has no client's request: the address is none of the mesh, or it is no tunnel at all."""
    mesh = placed.mesh
    assert mesh.agent is not None
    (waypoint,) = mesh.pods_named("waypoint")
    certificate = mesh.agent.client(mesh.folder, "apps", "nightly")
    url = f"https://{waypoint.ip}:{TUNNEL_PORT}"
    served(placed, CONVERSATIONS[0])
    before = len(mesh.records())

    with pytest.raises(httpx.ProxyError, match="503"):
        httpx.get("https://10.9.9.9:8000", proxy=httpx.Proxy(url, ssl_context=certificate))
    assert httpx.get(f"{url}/v1/models", verify=certificate).status_code == 404

    assert recorded(placed, before) == set()


def test_bytes_that_are_no_request_have_a_record(placed: Ambient) -> None:
    served(placed, CONVERSATIONS[0])
    before = len(placed.mesh.records())

    with socket.create_connection(("127.0.0.1", placed.door), PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")

    assert recorded(placed, before) == {None}


def test_envoy_takes_all_that_istiod_sends_to_the_waypoint(placed: Ambient) -> None:
    stats = httpx.get(f"http://127.0.0.1:{placed.admin}/stats").text.splitlines()
    rejected = [line for line in stats if "_rejected: " in line]

    assert rejected
    assert all(line.endswith(": 0") for line in rejected)


def test_a_pod_that_leaves_moves_its_own_conversations_to_their_next_pod(placed: Ambient) -> None:
    dead = placed.mesh.pods_named("llama-8b-v1")[0]
    gone = f"{dead.ip}:8000"
    expected = {
        each: next(pod for pod in wanted(placed, each) if pod != gone) for each in CONVERSATIONS
    }
    placed.mesh.kill(dead.name)
    dead.ready = False
    placed.mesh.publish()
    clusters = f"http://127.0.0.1:{placed.admin}/clusters"
    wait_until(lambda: f"/{gone}::" not in httpx.get(clusters).text, "the endpoint's end")

    assert {each: served(placed, each) for each in CONVERSATIONS} == expected
