"""Envoy's own bounded hash, behind the real istiod: by the component hash-balance."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.cluster import ISTIO, RunningMesh, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.policies import policy
from tests.mesh.traffic import send
from tests.patience import wait_until


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder: Path = tmp_path_factory.mktemp("balanced")
    (folder / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/staging]\ncomponents: [{ISTIO}/components/hash-balance]\n"
    )
    with running_mesh(folder, policy(LIMITS), overlay=folder) as mesh:
        yield mesh


def test_the_bound_arrives_and_envoy_refuses_nothing(balanced: RunningMesh) -> None:
    wait_until(lambda: '"hash_balance_factor": 150' in balanced.admin("/config_dump"), "the bound")
    clusters = balanced.admin("/config_dump?resource=dynamic_active_clusters")

    assert '"lb_policy": "RING_HASH"' in clusters
    assert not any(count for name, count in balanced.stats().items() if "_rejected" in name)
    assert send(balanced, ({} for _ in range(50))) == {200: 50}
