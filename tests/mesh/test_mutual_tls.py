"""Callers without a key in a mesh with mTLS: istiod signs, real Envoys speak for both ends."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headgate.program.postgres.folder import APPLICATION
from tests.box import KEYS
from tests.mesh.agent import Agent
from tests.mesh.cluster import RunningMesh, prepared_mesh
from tests.mesh.machine import ISTIO
from tests.mesh.pods import Pod
from tests.mesh.policies import policy
from tests.mesh.sidecars import (
    HOOKS,
    apply_component,
    models_at,
    one_of_each,
    sidecar_for,
    start_sidecar,
)
from tests.patience import wait_until
from tests.ports import free_port
from tests.postgres_server import running_server

NIGHTLY = "spiffe://cluster.local/ns/apps/sa/nightly"
MODEL_HOST = "llama-8b.vllm.svc.cluster.local"
API_HOST = "headgate-api.example.org"
OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789"
FORGED = {
    "x-forwarded-client-cert": f"By=spiffe://x;Hash=00;URI={NIGHTLY}",
    "x-envoy-peer-principal": NIGHTLY,
    "x-headgate-user": "nightly",
}


@dataclass
class Site:
    """The mesh, and its proxies' addresses."""

    mesh: RunningMesh
    folder: Path
    nightly: Pod
    mutual_door: int

    def chat(
        self, base: str, verify: ssl.SSLContext | bool = True, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"model": "llama-8b", "messages": [{"role": "user", "content": "Hi"}]}
        url = f"{base}/v1/chat/completions"
        return httpx.post(url, json={**body, "max_tokens": 2}, headers=named, verify=verify)

    def by_envoy(self, **headers: str) -> httpx.Response:
        """A chat of the workload `nightly`, through its own Envoy to that of the model."""
        host = f"{MODEL_HOST}:8000"
        return self.chat(f"http://{self.nightly.ip}:8000", host=host, **headers)

    def certificate(self, namespace: str, account: str) -> ssl.SSLContext:
        """A client with the certificate of a workload, which trusts the mesh's authority."""
        assert self.mesh.agent is not None
        return self.mesh.agent.client(self.folder, namespace, account)

    def door(self, app: str, port: int) -> str:
        (pod,) = (pod for pod in self.mesh.pods if pod.labels["app"] == app)
        return f"https://{pod.door_ip}:{port}"

    def caller(self, answer: httpx.Response) -> tuple[str, str, str]:
        """Tenant, user and key of an admitted request, from its usage record."""
        assert answer.status_code == 200, answer.text
        record = self.mesh.record_of(answer.headers["x-request-id"])
        return record["tenant"], record["user"], record["key"]


def overlay(folder: Path) -> Path:
    folder.mkdir()
    lines = [f"resources: [{ISTIO}/overlays/staging]", "components:"]
    lines += [f"  - {ISTIO}/components/{name}" for name in ("database", "api")]
    (folder / "kustomization.yaml").write_text("\n".join(lines))
    return folder


def with_workload() -> str:
    whole = policy()
    return f'{whole}    workloads: [{{user: nightly, spiffe: "{NIGHTLY}"}}]\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("mutual")
    (folder / "operator-token").write_text(OPERATOR_TOKEN)
    whole = overlay(folder / "overlay")
    with (
        running_server() as postgres,
        prepared_mesh(folder, with_workload(), whole, one_of_each) as mesh,
    ):
        database, api_port = postgres.server.folder, free_port()
        (folder / "password").write_text(database.password_of(APPLICATION))
        url = f"postgresql://{APPLICATION}@/{postgres.clean_database()}?host={database.socket}"
        options = [
            f"--database={url}",
            f"--database-password-file={folder}/password",
            f"--keys-snapshot={folder}/keys",
            f"--operator-token-file={folder}/operator-token",
            f"--api=127.0.0.1:{api_port}",
        ]
        mesh.agent = Agent()
        mesh.start_pods({"headgate": options})
        mesh.start_istiod({})
        yield _started(mesh, folder, api_port)


def _started(mesh: RunningMesh, folder: Path, api_port: int) -> Site:
    """Starts the Envoys of the pods, of both gateways and of a caller."""
    shipped = mesh.changed("Sidecar", "headgate")
    shipped["spec"]["ingress"][2]["defaultEndpoint"] = f"127.0.0.1:{api_port}"
    port = {"number": 8000, "protocol": "HTTP", "name": "http"}
    of_model = {"port": port, "defaultEndpoint": "0.0.0.0:8000"}
    for pod in mesh.pods:
        if pod.labels["app"] == "headgate":
            start_sidecar(mesh, pod, shipped, HOOKS)
        else:
            sidecar = sidecar_for("model", "vllm", {"app": pod.labels["app"]}, of_model)
            start_sidecar(mesh, pod, sidecar, HOOKS)
    nightly = Pod("nightly", "apps", mesh.addresses.next(), {"app": "nightly"}, [], {})
    nightly.account, nightly.door_ip = "nightly", mesh.addresses.next()
    mesh.api.apply(nightly.value())
    sidecar = sidecar_for("nightly", "apps", {"app": "nightly"})
    start_sidecar(mesh, nightly, sidecar, models_at(nightly.ip))
    mutual_door = _open_mutual_door(mesh)
    mesh.start_gateway()
    mesh.start_envoy("api", "headgate-api", "headgate-api", free_port())
    # A cluster sends a pod requests once its sidecar is ready. Here its address is known before.
    wait_until(lambda: mesh.chat().status_code == 200, "the certificates of all sidecars")
    return Site(mesh, folder, nightly, mutual_door)


def _open_mutual_door(mesh: RunningMesh) -> int:
    """The gateway's second server, which asks for certificates of the mesh."""
    gateway, number = mesh.changed("Gateway", "headgate"), free_port()
    port = {"number": number, "name": "mutual", "protocol": "HTTPS"}
    server = {"port": port, "bind": "127.0.0.1", "hosts": ["*"], "tls": {"mode": "ISTIO_MUTUAL"}}
    gateway["spec"]["servers"].append(server)
    mesh.apply(gateway)
    return number


@pytest.fixture(scope="module")
def attached(site: Site) -> Site:
    """The site whose models have the request path at their sidecars, for calls past the gateway."""
    names = ("authorizationpolicy", "callers-authorizationpolicy", "envoyfilters")
    apply_component(site.mesh, "sidecar", *names, "telemetry-records")
    sent: list[str] = []

    def is_recorded() -> bool:
        try:
            answer = site.by_envoy()
        except httpx.HTTPError:  # a connection ends when its listener changes
            return False
        if answer.status_code == 200:
            sent.append(answer.headers["x-request-id"])
        return any(record["request_id"] in sent for record in site.mesh.records())

    wait_until(is_recorded, "the request path at the sidecar, and its access log")
    return site


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- at the gateway ------------------------------------------------------------------------------


def test_hooks_and_models_are_called_over_mtls(site: Site) -> None:
    answer = site.mesh.chat()

    assert site.caller(answer) == ("acme", "alice", "alice-key")
    handshakes = {
        name.split("|")[-1].partition(";")[0]
        for name, count in site.mesh.stats().items()
        if name.endswith("ssl.handshake") and "outbound|" in name and count
    }
    assert handshakes == {"headgate.headgate.svc.cluster.local", MODEL_HOST}


def test_a_workload_calls_by_its_certificate_at_a_gateway_that_asks_for_one(site: Site) -> None:
    door = f"https://127.0.0.1:{site.mutual_door}"

    answer = site.chat(door, site.certificate("apps", "nightly"))

    assert site.caller(answer) == ("acme", "nightly", NIGHTLY)
    other = site.certificate("apps", "other")
    assert code(site.chat(door, other)) == (401, "missing_api_key")
    assert code(site.chat(door, other, **FORGED)) == (401, "missing_api_key")
    assert code(site.chat(site.mesh.url, **FORGED)) == (401, "missing_api_key")


# --- who reaches the services --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "port", "admitted"),
    [
        ("istio-ingress", 9001, True),
        ("vllm", 9001, True),
        ("headgate-api", 9001, False),
        ("apps", 9001, False),
        ("headgate-api", 9003, True),
        ("istio-ingress", 9003, False),
        ("vllm", 9003, False),
        ("monitoring", 9002, True),
        ("apps", 9002, False),
    ],
)
def test_each_port_of_the_services_admits_only_its_callers(
    site: Site, namespace: str, port: int, admitted: bool
) -> None:
    trusted = site.certificate(namespace, "default")

    answer = httpx.get(f"{site.door('headgate', port)}/metrics", verify=trusted)

    assert (answer.text != "RBAC: access denied") == admitted
    assert (answer.status_code != 403) == admitted


@pytest.mark.parametrize("port", [9001, 9002, 9003])
def test_nobody_without_a_certificate_of_the_mesh_reaches_a_port(site: Site, port: int) -> None:
    door = site.door("headgate", port)
    assert site.mesh.agent is not None
    authority = site.mesh.agent.identity("apps", "nightly").authority.decode()
    without = ssl.create_default_context(cadata=authority)
    without.check_hostname = False

    with pytest.raises(httpx.TransportError):
        httpx.get(door.replace("https", "http"))
    with pytest.raises(httpx.TransportError):
        httpx.get(door, verify=without)


def test_the_api_is_reached_through_its_gateway_and_its_sidecar(site: Site) -> None:
    shipped = site.mesh.changed("AuthorizationPolicy", "headgate-api")
    shipped["spec"]["rules"][0]["from"][0]["source"]["ipBlocks"] = ["127.0.0.0/8"]
    site.mesh.apply(shipped)
    headers = {"authorization": f"Bearer {OPERATOR_TOKEN}", "host": API_HOST}
    url = f"http://127.0.0.1:{site.mesh.doors['headgate-api']}/api/v1/tenants"

    def ask(**changed: str) -> httpx.Response:
        return httpx.get(url, headers={**headers, **changed})

    wait_until(lambda: ask().status_code == 200, "the API")
    assert [tenant["name"] for tenant in ask().json()["data"]] == ["acme"]
    assert ask(authorization="Bearer x").status_code == 401


# --- at the sidecar of a model -------------------------------------------------------------------


def test_a_workload_calls_the_model_through_both_sidecars_without_a_key(attached: Site) -> None:
    assert attached.caller(attached.by_envoy()) == ("acme", "nightly", NIGHTLY)


def test_a_key_counts_before_the_workload(attached: Site) -> None:
    answer = attached.by_envoy(authorization=f"Bearer {KEYS['alice']}")

    assert attached.caller(answer) == ("acme", "alice", "alice-key")
    assert code(attached.by_envoy(authorization="Bearer sk-x")) == (401, "invalid_api_key")


def test_a_workload_that_the_policy_does_not_list_is_nobody_whatever_it_writes(
    attached: Site,
) -> None:
    door = attached.door("llama-8b", 8000)
    other = attached.certificate("apps", "other")

    assert code(attached.chat(door, other)) == (401, "missing_api_key")
    assert code(attached.chat(door, other, **FORGED)) == (401, "missing_api_key")


def test_a_namespace_that_may_not_call_models_is_refused(attached: Site) -> None:
    """Istio's refusal has the form of our own guard's: both filters are of one kind."""
    door = attached.door("llama-8b", 8000)

    elsewhere = attached.certificate("elsewhere", "nightly")
    answer = attached.chat(door, elsewhere, authorization=f"Bearer {KEYS['alice']}")

    assert code(answer) == (503, "service_unavailable")
    assert code(attached.chat(door, elsewhere, **FORGED)) == (401, "missing_api_key")
