"""A model's spare version in another region answers while its own pods are away, or full.

The route and the host of the spare version are those of docs/failover.md.
"""

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import KEYS, digest, small_chat
from tests.istio.spare_route import shown_in_page
from tests.mesh.cluster import ISTIO, RunningMesh, is_200, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.far_region import far_gateway
from tests.mesh.pods import Pod
from tests.mesh.policies import MODEL, policy
from tests.mesh.test_sticky import loads
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port

SPARE_PRICE = Decimal("2.00")
"""Of a million tokens of either kind. Globex pays less than that, acme any price."""
LONG = {"stream": True, "max_tokens": 8000}
SLOTS, QUEUE = 1, 2
GLOBEX = f"""
  globex:
    models: [llama-8b]
    failover_ceiling: {{input: 1, output: 1}}
    keys:
      - {{id: carol-key, user: carol, sha256: "{digest(KEYS["carol"])}"}}
"""


def text(pods: tuple[str, ...] = ()) -> str:
    """The policy with a spare version, and the pods of the own one."""
    own = json.dumps({"weight": 100, **({"pods": pods} if pods else {})})
    queue = f", queue_over: {QUEUE}" if pods else ""
    lines = [
        f"    pod_slots: {SLOTS}",
        "    versions:",
        f"      v1: {own}",
        "      spot: {weight: 0, upstream: 'https://llama-8b.us-east.example.org',",
        f"        prices: {{input: {SPARE_PRICE}, output: {SPARE_PRICE}}}}}",
        f"    failover: {{to: spot{queue}}}\n",
    ]
    return policy(LIMITS, MODEL + "\n".join(lines)) + GLOBEX


@dataclass
class Regions:
    """A mesh, and the gateway of another region."""

    mesh: RunningMesh
    far: str
    """The address of the other region's gateway."""
    far_vllm: str

    @property
    def own(self) -> list[Pod]:
        return self.mesh.pods_named("llama-8b-v1")

    def records(self, count: int) -> list[dict[str, Any]]:
        """The records of some more requests, in their order.

        Until the log tells its end, about a second, a request counts at its pod.
        """
        answers = [self.mesh.chat() for _ in range(count)]
        return [self.mesh.record_of(answer.headers["x-request-id"]) for answer in answers]

    def wait_for(self, version: str) -> list[dict[str, Any]]:
        """Waits until both replicas send requests to this version: the records of some in a row."""

        def in_a_row() -> list[dict[str, Any]] | None:
            records = self.records(6)
            return records if {each["version"] for each in records} == {version} else None

        return list(wait_until(in_a_row, f"answers of {version}"))

    def far_answers(self) -> int:
        """The requests that the other region has answered to their end."""
        lines = httpx.get(f"http://{self.far_vllm}/metrics").text.splitlines()
        found = (each for each in lines if each.startswith("vllm:request_success_total{"))
        return int(sum(float(each.rpartition(" ")[2]) for each in found))

    def kill(self) -> None:
        """The own pods refuse connections, and are still listed."""
        for pod in self.own:
            self.mesh.kill(pod.name)

    def unlist(self) -> None:
        """Kubernetes lists no own pod any more."""
        for pod in self.own:
            pod.ready = False
        self.mesh.publish()
        gone = [f"::{pod.ip}:8000::" for pod in self.own]
        wait_until(
            lambda: not any(each in self.mesh.admin("/clusters") for each in gone), "no own pod"
        )

    def revive(self) -> None:
        """The own pods start again, and are listed then."""
        for pod in self.own:
            if self.mesh.processes[pod.name].poll() is not None:
                self.mesh.start_pod(pod)
        for pod in self.own:
            wait_until(partial(is_200, f"http://{pod.ip}:8000/health"), pod.name)
            pod.ready = True
        self.mesh.publish()


@pytest.fixture(scope="module", params=["gateway", "lean"])
def regions_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Regions]:
    folder: Path = tmp_path_factory.mktemp(f"regions-{request.param}")
    components = ["placement"] if request.param == "gateway" else ["lean", "placement"]
    listed = ", ".join(f"{ISTIO}/components/{name}" for name in components)
    (folder / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/staging]\ncomponents: [{listed}]\n"
    )
    with running_mesh(folder, text(), overlay=folder) as mesh:
        regions = start_far(mesh)
        name_pods(regions)
        yield regions


def start_far(mesh: RunningMesh) -> Regions:
    """Starts the other region, and applies what docs/failover.md shows of it.

    There is no DNS here, and no agent that gives the gateway the authorities of the system.
    """
    ip, port, vllm, admin = mesh.addresses.next(), free_port(), free_port(), free_port()
    routes, (entry, rule) = shown_in_page()
    (host,) = entry["spec"]["hosts"]
    model = ("--model", "llama-8b", "--force-usage", "--host", ip, "--port", str(vllm))
    mesh.start("far-vllm", sys.executable, "-m", "headgate.simulator", *model)
    mesh.start_proxy("far-gateway", far_gateway(host, ip, port, vllm, admin))
    wait_until(lambda: mesh.is_ready(admin), "the other region")
    wait_until(lambda: is_200(f"http://{ip}:{vllm}/health"), "its vLLM")
    entry["spec"] |= {"resolution": "STATIC"}
    entry["spec"] |= {"endpoints": [{"address": ip, "ports": {"http": port}}]}
    rule["spec"]["trafficPolicy"]["tls"]["insecureSkipVerify"] = True
    virtual = mesh.changed("VirtualService", "llama-8b")
    virtual["spec"]["http"] = [*routes, *virtual["spec"]["http"]]
    mesh.apply(entry, rule, virtual)
    mesh.wait_until_taken(host)
    return Regions(mesh, f"{ip}:{port}", f"{ip}:{vllm}")


def name_pods(regions: Regions) -> None:
    """Writes the own pods into the policy, and waits until both replicas know them."""
    mesh = regions.mesh
    before = loads(mesh)
    draft = mesh.folder / "headgate.draft"
    draft.write_text(text(tuple(f"{pod.ip}:8000" for pod in regions.own)))
    draft.replace(mesh.folder / "headgate.yaml")
    wait_until(
        lambda: all(new > old for new, old in zip(loads(mesh), before, strict=True)), "the pods"
    )


@pytest.fixture
def regions(regions_of_module: Regions) -> Regions:
    """All pods are there, and requests go to the own ones."""
    regions_of_module.revive()
    regions_of_module.wait_for("v1")
    return regions_of_module


def test_while_no_own_pod_is_listed_the_spare_version_answers(regions: Regions) -> None:
    """Two replicas decide. Each sends one request in 10 s to the own version, to try it."""
    regions.kill()
    regions.unlist()
    regions.wait_for("spot")
    records = regions.records(12)

    answered = [record for record in records if record["version"] == "spot"]
    assert {(each["status"], each["pod"], each["attempts"]) for each in answered} == {
        (200, regions.far, 1)
    }
    assert all(each["status"] == 503 for each in records if each not in answered)
    assert len(answered) >= 6
    for record in answered:
        tokens = record["prompt_tokens"] + record["completion_tokens"]
        assert Decimal(str(record["cost"])) * 1_000_000 == tokens * SPARE_PRICE


def test_pods_that_refuse_connections_are_down_before_kubernetes_says_so(regions: Regions) -> None:
    """Until the log has told it, clients get 503 in OpenAI's shape, and may try again."""
    regions.kill()
    refused = regions.mesh.chat()
    record = regions.mesh.record_of(refused.headers["x-request-id"])
    regions.wait_for("spot")

    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "server_error"
    assert (record["version"], record["attempts"]) == ("v1", 3), "retries stay with the version"
    assert "UF" in record["flags"]


def test_a_tenant_whose_ceiling_is_lower_gets_503_and_not_the_spare_version(
    regions: Regions,
) -> None:
    regions.kill()
    regions.unlist()
    regions.wait_for("spot")
    before = regions.far_answers()

    assert [regions.mesh.chat("carol").status_code for _ in range(4)] == [503] * 4
    assert regions.far_answers() == before


def test_requests_come_back_with_the_own_pods(regions: Regions) -> None:
    regions.kill()
    regions.unlist()
    regions.wait_for("spot")
    regions.revive()
    regions.wait_for("v1")

    assert {each["version"] for _ in range(4) for each in regions.records(4)} == {"v1"}


def test_beyond_the_bound_of_the_queue_requests_go_to_the_spare_version(regions: Regions) -> None:
    """Long streams take the slots and the queue of each pod. Some more may be needed: a replica
    that does not know yet that earlier requests have ended sends a stream to the spare version.
    """
    started, leave = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(100) as threads:
        held = []

        def is_full() -> bool:
            held.append(threads.submit(hold, regions.mesh, started, leave))
            assert started.acquire(timeout=PATIENCE_S)
            if len(held) < len(regions.own) * (SLOTS + QUEUE):
                return False
            return {each["version"] for each in regions.records(4)} == {"spot"}

        try:
            wait_until(is_full, "a full queue")
            capped = regions.mesh.chat("carol")
        finally:
            leave.set()
        for each in held:
            each.result()

    assert capped.status_code == 200
    assert regions.mesh.record_of(capped.headers["x-request-id"])["version"] == "v1"
    regions.wait_for("v1")


def hold(mesh: RunningMesh, started: threading.Semaphore, leave: threading.Event) -> None:
    """Reads a long stream until it may leave."""
    url = f"{mesh.url}/v1/chat/completions"
    body = {**small_chat(), "model": "llama-8b", **LONG}
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        started.release()
        while not leave.is_set() and next(lines, None) is not None:
            pass


def test_an_answer_that_has_begun_is_never_sent_again(regions: Regions) -> None:
    before = regions.far_answers()
    url = f"{regions.mesh.url}/v1/chat/completions"
    body = {**small_chat(), "model": "llama-8b", **LONG}
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        regions.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    record = regions.mesh.record_of(answer.headers["x-request-id"])

    assert (record["version"], record["attempts"]) == ("v1", 1)
    assert record["ended"] == "upstream_broke"
    assert regions.far_answers() == before


def test_without_the_rewrite_the_other_region_does_not_know_the_name(regions: Regions) -> None:
    mesh = regions.mesh
    virtual = mesh.changed("VirtualService", "llama-8b")
    del virtual["spec"]["http"][0]["rewrite"]
    mesh.apply(virtual)
    wait_until(
        lambda: (
            "host_rewrite_literal" not in mesh.admin("/config_dump?resource=dynamic_route_configs")
        ),
        "the end of the rewrite",
    )
    regions.kill()

    assert {each["status"] for each in regions.wait_for("spot")} == {404}
