"""A model's spare version in another region answers while its own pods are away, or full."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.box import KEYS, small_chat
from tests.mesh.cluster import ISTIO, RunningMesh, running_mesh
from tests.mesh.regions import QUEUE, SLOTS, SPARE_PRICE, Regions, name_pods, start_far, text
from tests.patience import PATIENCE_S, wait_until


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


def long_stream(mesh: RunningMesh) -> AbstractContextManager[httpx.Response]:
    body = {**small_chat(), "model": "llama-8b", "stream": True, "max_tokens": 8000}
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    url = f"{mesh.url}/v1/chat/completions"
    return httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S)


def hold(mesh: RunningMesh, started: threading.Semaphore, leave: threading.Event) -> None:
    """Reads a long stream until it may leave."""
    with long_stream(mesh) as answer:
        lines = answer.iter_lines()
        next(lines)
        started.release()
        while not leave.is_set() and next(lines, None) is not None:
            pass


def test_an_answer_that_has_begun_is_never_sent_again(regions: Regions) -> None:
    before = regions.far_answers()
    with long_stream(regions.mesh) as answer:
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
