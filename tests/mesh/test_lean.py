"""The lean path behind the real istiod: its filters arrive in order, and requests are metered."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headgate.core.contract import Namespace
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.chains import filter_chain
from headgate.dataplane.envoy_filters import SERVICES_CLUSTER
from tests.mesh.cluster import ISTIO, RunningMesh, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.policies import policy
from tests.mesh.test_filters import ISTIODS_OWN, manager


@pytest.fixture(scope="module")
def lean_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder: Path = tmp_path_factory.mktemp("lean-mesh")
    (folder / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/staging]\ncomponents: [{ISTIO}/components/lean]\n"
    )
    with running_mesh(folder, policy(LIMITS), overlay=folder) as running:
        yield running


def test_the_body_is_read_before_ext_authz_asks(lean_mesh: RunningMesh) -> None:
    ours = filter_chain(SERVICES_CLUSTER, BODY_LIMIT_BYTES, HookPath.LEAN)
    running = [each["name"] for each in manager(lean_mesh)["http_filters"]]

    assert [name for name in running if name not in ISTIODS_OWN] == [each.name for each in ours]
    assert running.index("headgate.request_reader") < running.index(Namespace.CALLER)


def test_envoy_refuses_nothing_that_istiod_sends(lean_mesh: RunningMesh) -> None:
    stats = lean_mesh.stats()

    assert not any(count for name, count in stats.items() if "update_rejected" in name)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_metered_once_by_one_call(lean_mesh: RunningMesh, stream: bool) -> None:
    answer = lean_mesh.chat(max_tokens=7, stream=stream)
    record = lean_mesh.record_of(answer.headers["x-request-id"])

    assert answer.status_code == 200
    assert (record["completion_tokens"], record["source"]) == (7, "usage")
    assert int(answer.headers["x-ratelimit-remaining-requests"]) < 1_000_000


def test_without_a_key_or_a_known_model_a_request_is_refused(lean_mesh: RunningMesh) -> None:
    unknown = httpx.post(f"{lean_mesh.url}/v1/chat/completions", json={"model": "llama-8b"})
    nobody = lean_mesh.chat(model="nobody")

    assert (unknown.status_code, nobody.status_code) == (401, 404)
    assert nobody.json()["error"]["code"] == "model_not_found"
