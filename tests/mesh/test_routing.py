"""Routing by version: the split of the VirtualService, and the version that Headgate names."""

import math
from typing import Any

from tests.mesh.cluster import RunningMesh
from tests.mesh.traffic import by_version, send, served
from tests.patience import wait_until

SPLIT = 10_000


def weigh(mesh: RunningMesh, v1: int, v2: int) -> None:
    """Writes other weights into the split and waits until the gateway has them."""
    routes = mesh.changed("VirtualService", "llama-8b")
    split = routes["spec"]["http"][-1]["route"]
    split[0]["weight"], split[1]["weight"] = v1, v2
    mesh.apply(routes)
    mesh.wait_until_taken(f'"weight": {v2}' if 0 < v2 < 100 else "v2|llama" if v2 else "v1|llama")


def test_the_split_is_that_of_the_virtual_service(mesh: RunningMesh) -> None:
    """Within four standard deviations of 10 % in 10,000 requests."""
    before = served(mesh)
    statuses = send(mesh, ({} for _ in range(SPLIT)))
    versions = by_version(before, served(mesh))

    assert statuses == {200: SPLIT}
    assert sum(versions.values()) == SPLIT
    deviation = math.sqrt(SPLIT * 0.1 * 0.9)
    assert abs(versions["v2"] - SPLIT * 0.1) < 4 * deviation, versions


def test_a_clients_own_version_header_chooses_nothing(mesh: RunningMesh) -> None:
    before = served(mesh)
    send(mesh, ({} for _ in range(400)), **{"x-headgate-version": "v2", "x-model-version": "v2"})

    assert by_version(before, served(mesh))["v2"] < 100


def test_a_rollback_is_one_weight(mesh: RunningMesh) -> None:
    weigh(mesh, 50, 50)
    weigh(mesh, 100, 0)
    mesh.wait_until_taken('"cluster": "outbound|8000|v1|llama-8b.vllm.svc.cluster.local"')
    before = served(mesh)
    statuses = send(mesh, ({} for _ in range(500)))
    versions = by_version(before, served(mesh))

    assert statuses == {200: 500}
    assert versions == {"v1": 500, "v2": 0}
    weigh(mesh, 90, 10)


def test_mirrored_traffic_is_metered_once(mesh: RunningMesh) -> None:
    """Every request goes to v1 and, in the shadow, to v2."""
    routes = mesh.changed("VirtualService", "llama-8b")
    shadowed = mesh.changed("VirtualService", "llama-8b")
    split = shadowed["spec"]["http"][-1]
    second = split["route"].pop()["destination"]
    split["route"][0].pop("weight")
    split["mirrors"] = [{"destination": second, "percentage": {"value": 100}}]
    mesh.apply(shadowed)
    mesh.wait_until_taken("request_mirror_policies")
    before = served(mesh)
    statuses = send(mesh, ({} for _ in range(200)), **{"user-agent": "shadowed"})
    mesh.record_of(mesh.chat().headers["x-request-id"])
    wait_until(lambda: len(recorded(mesh)) >= 200, "the records")
    versions = by_version(before, served(mesh))
    mesh.apply(routes)

    assert statuses == {200: 200}
    assert versions == {"v1": 201, "v2": 201}
    assert len(recorded(mesh)) == 200


def recorded(mesh: RunningMesh) -> list[dict[str, Any]]:
    return [record for record in mesh.records() if record["user_agent"] == "shadowed"]
