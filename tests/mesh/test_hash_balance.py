"""Envoy's own bounded hash, behind the real istiod: by the component hash-balance."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mesh.cluster import ISTIO, RunningMesh, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.policies import policy
from tests.mesh.traffic import send, served
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


def test_a_key_has_one_pod_until_the_bound_spreads_it(balanced: RunningMesh) -> None:
    """Without the bound one of the three pods of v1 would get all requests of a hot key."""
    one_by_one = by_pod(balanced, lambda: [balanced.chat(prompt_cache_key="hot") for _ in range(9)])
    hot = ({"prompt_cache_key": "hot", "max_tokens": 20} for _ in range(400))
    at_once = by_pod(balanced, lambda: send(balanced, hot))

    assert len([count for count in one_by_one if count]) <= 1
    assert sum(at_once) > 200, "v1 has nine tenths of the requests"
    assert max(at_once) <= sum(at_once) * 2 / 3, at_once


def by_pod(mesh: RunningMesh, act: Callable[[], object]) -> list[int]:
    """How many requests each pod of v1 got meanwhile."""
    before = served(mesh)
    act()
    after = served(mesh)
    return [after[pod.name] - before[pod.name] for pod in mesh.pods_named("llama-8b-v1")]
