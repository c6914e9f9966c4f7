"""A pod that fails leaves within seconds and comes back; one that is killed loses no request."""

import threading
from collections import Counter
from typing import Any

import httpx

from tests.mesh.cluster import RunningMesh
from tests.mesh.traffic import AT_ONCE, send, served
from tests.patience import wait_until

EJECTIONS = "cluster.outbound|8000|v1|llama-8b.vllm.svc.cluster.local;.outlier_detection"


def all_to_v1(mesh: RunningMesh) -> None:
    routes = mesh.changed("VirtualService", "llama-8b")
    routes["spec"]["http"] = routes["spec"]["http"][-1:]
    routes["spec"]["http"][0]["route"] = routes["spec"]["http"][0]["route"][:1]
    routes["spec"]["http"][0]["route"][0]["weight"] = 100
    mesh.apply(routes)
    wait_until(
        lambda: (
            "weighted_clusters" not in mesh.admin("/config_dump?resource=dynamic_route_configs")
        ),
        "all traffic on v1",
    )


def quick_return(mesh: RunningMesh) -> None:
    """Ejects for two seconds instead of the thirty in the file, as a test waits for the return."""
    rule = mesh.changed("DestinationRule", "llama-8b")
    rule["spec"]["trafficPolicy"]["outlierDetection"]["baseEjectionTime"] = "2s"
    mesh.apply(rule)
    wait_until(
        lambda: '"base_ejection_time": "2s"' in mesh.admin("/config_dump"), "the shorter time"
    )


def test_a_pod_that_fails_is_ejected_and_returns(mesh: RunningMesh) -> None:
    all_to_v1(mesh)
    quick_return(mesh)
    ill = mesh.pods_named("llama-8b-v1")[0]
    httpx.post(f"http://{ill.ip}:8000/simulate", json={"status": 500}).raise_for_status()
    statuses: Counter[int] = Counter()
    while not mesh.stats()[f"{EJECTIONS}.ejections_active"]:
        statuses += send(mesh, ({} for _ in range(20)))
        assert sum(statuses.values()) < 2000, "the failing pod was never ejected"
    after_ejection = send(mesh, ({} for _ in range(100)))
    httpx.delete(f"http://{ill.ip}:8000/simulate").raise_for_status()
    wait_until(lambda: not mesh.stats()[f"{EJECTIONS}.ejections_active"], "its return")
    before = served(mesh)
    back = send(mesh, ({} for _ in range(200)))

    assert 3 <= statuses[500] <= 60, statuses
    assert after_ejection == {200: 100}
    assert back == {200: 200}
    assert served(mesh)[ill.name] > before[ill.name]


def test_a_killed_pod_loses_no_request_that_had_not_started(mesh: RunningMesh) -> None:
    """It refuses connections until its endpoint is gone, so those requests go to other pods."""
    all_to_v1(mesh)
    dead = mesh.pods_named("llama-8b-v1")[1]
    statuses: Counter[int] = Counter()

    def load() -> None:
        statuses.update(send(mesh, ({} for _ in range(1500)), **{"user-agent": "killed"}))

    thread = threading.Thread(target=load)
    thread.start()
    wait_until(lambda: served(mesh)[dead.name] > 20, "requests at the pod")
    mesh.kill(dead.name)
    dead.ready = False
    thread.join(60)
    mesh.publish()
    wait_until(lambda: len(recorded(mesh)) >= 1500, "the records")
    lost = [record for record in recorded(mesh) if record["status"] != 200]
    not_begun = [(r["flags"], r["details"]) for r in lost if r["flags"] != ["UC"]]

    assert set(statuses) <= {200, 503}
    assert len(lost) == statuses[503] <= AT_ONCE
    assert not_begun == [], "only what the pod had begun is lost"
    assert send(mesh, ({} for _ in range(200))) == {200: 200}


def recorded(mesh: RunningMesh) -> list[dict[str, Any]]:
    return [record for record in mesh.records() if record["user_agent"] == "killed"]
