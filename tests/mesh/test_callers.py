"""Callers in a mesh, by the components sso, database and api as they are shipped.

The mesh has a test issuer of our own, a real PostgreSQL and two gateways.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.program.postgres.folder import APPLICATION
from tests.box import KEYS, digest
from tests.identity.issuer import TestIssuer, rsa_key
from tests.mesh.cluster import RunningMesh, running_mesh
from tests.mesh.machine import ISTIO
from tests.mesh.policies import MODEL
from tests.patience import wait_until
from tests.ports import free_port
from tests.postgres_server import running_server

COMPONENTS = ("database", "sso", "api")
API_HOST = "headgate-api.example.org"
OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789"
SPIFFE = "spiffe://cluster.local/ns/jobs/sa/nightly"


@dataclass
class Site:
    """The mesh, its issuer, and the door of its management API."""

    mesh: RunningMesh
    issuer: TestIssuer

    def chat(self, bearer: str | None, *headers: tuple[str, str]) -> httpx.Response:
        """One small chat with a key or token, and headers that may repeat."""
        shown = [] if bearer is None else [("authorization", f"Bearer {bearer}")]
        body = {"model": "llama-8b", "messages": [{"role": "user", "content": "Hi"}]}
        url = f"{self.mesh.url}/v1/chat/completions"
        return httpx.post(url, json={**body, "max_tokens": 2}, headers=[*shown, *headers])

    def caller(self, answer: httpx.Response) -> tuple[str, str, str]:
        """Tenant, user and key of an admitted request, from its usage record."""
        assert answer.status_code == 200, answer.text
        record = self.mesh.record_of(answer.headers["x-request-id"])
        return record["tenant"], record["user"], record["key"]

    def manage(self, method: str, path: str, body: object = None, **more: str) -> httpx.Response:
        """A call of the management API by the operator, at the API's own gateway."""
        headers = {"authorization": f"Bearer {OPERATOR_TOKEN}", "host": API_HOST, **more}
        url = f"http://127.0.0.1:{self.mesh.doors['headgate-api']}{path}"
        return httpx.request(method, url, json=body, headers=headers)


def policy(issuer_url: str) -> str:
    return f"""{MODEL}
issuers:
  corp: {{issuer: "{issuer_url}", audience: [headgate], tenants: [{{tenant: acme, groups: [ml]}}]}}
tenants:
  acme:
    models: [llama-8b]
    keys:
      - {{id: alice-key, user: alice, sha256: "{digest(KEYS["alice"])}"}}
      - {{id: chat, user: chat, sha256: "{digest(KEYS["bob"])}",
          acts_for: {{header: x-end-user-id}}}}
    workloads: [{{user: nightly, spiffe: "{SPIFFE}"}}]
"""


def overlay(folder: Path) -> Path:
    """The overlay for staging with the three components, as an operator adds them."""
    lines = [f"resources: [{ISTIO}/overlays/staging]", "components:"]
    lines += [f"  - {ISTIO}/components/{name}" for name in COMPONENTS]
    (folder / "kustomization.yaml").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("callers")
    (folder / "overlay").mkdir()
    token_file = folder / "operator-token"
    token_file.write_text(OPERATOR_TOKEN)
    issuer = TestIssuer()
    issuer.now_s = int(time.time())
    with running_server() as postgres, issuer.serve() as url:
        database = postgres.server.folder
        (folder / "password").write_text(database.password_of(APPLICATION))
        options = [
            f"--database=postgresql://{APPLICATION}@/{postgres.clean_database()}?host={database.socket}",
            f"--database-password-file={folder}/password",
            f"--keys-snapshot={folder}/keys-POD_IP",
            f"--operator-token-file={token_file}",
            "--api=POD_IP:9003",
        ]
        extra = {"headgate": options}
        with running_mesh(folder, policy(url), extra, overlay(folder / "overlay")) as mesh:
            mesh.start_envoy("api", "headgate-api", "headgate-api", free_port())
            yield Site(mesh, issuer)


@pytest.fixture(scope="module")
def admitted(site: Site) -> Site:
    """The site whose API admits this machine in the place of an office."""
    shipped = site.mesh.changed("AuthorizationPolicy", "headgate-api")
    assert shipped["metadata"]["namespace"] == "headgate-api"
    shipped["spec"]["rules"][0]["from"][0]["source"]["ipBlocks"] = ["127.0.0.0/8"]
    site.mesh.apply(shipped)
    wait_until(lambda: site.manage("GET", "/api/v1/tenants").status_code == 200, "the API's door")
    return site


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_nobody_from_elsewhere_reaches_the_api(site: Site) -> None:
    """Its AuthorizationPolicy admits the addresses of an office alone."""
    answer = wait_until(lambda: _answer(site), "the API's gateway")

    assert (answer.status_code, answer.text) == (403, "RBAC: access denied")


def _answer(site: Site) -> httpx.Response | None:
    try:
        answer = site.manage("GET", "/api/v1/tenants")
    except httpx.HTTPError:
        return None
    return answer if answer.status_code != 404 else None


def test_a_token_of_the_issuer_reaches_vllm_as_its_person(site: Site) -> None:
    token = site.issuer.token().decode()

    assert site.caller(site.chat(token)) == ("acme", "corp:alice", "corp")
    assert site.caller(site.chat(KEYS["alice"])) == ("acme", "alice", "alice-key")


def test_a_forged_or_expired_token_is_refused(site: Site) -> None:
    of_nobody = site.issuer.token({"kid": site.issuer.keys[0].kid}, key=rsa_key()).decode()
    expired = site.issuer.token(exp=site.issuer.now_s - 3600).decode()
    foreign = site.issuer.token(aud="another").decode()

    assert [code(site.chat(token)) for token in (of_nobody, expired, foreign)] == [
        (401, "invalid_token"),
        (401, "token_expired"),
        (401, "invalid_token"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        ("x-forwarded-client-cert", f"By=spiffe://x;Hash=00;URI={SPIFFE}"),
        ("x-envoy-peer-principal", SPIFFE),
        ("x-headgate-user", "nightly"),
    ],
    ids=lambda header: header[0],
)
def test_a_header_makes_nobody_a_workload(site: Site, header: tuple[str, str]) -> None:
    assert code(site.chat(None, header)) == (401, "missing_api_key")
    assert site.caller(site.chat(KEYS["alice"], header))[1] == "alice"


def test_the_header_of_a_front_end_decides_nothing_with_other_keys(site: Site) -> None:
    bob = ("x-end-user-id", "bob")

    assert site.caller(site.chat(KEYS["alice"], bob))[1] == "alice"
    assert site.caller(site.chat(site.issuer.token().decode(), bob))[1] == "corp:alice"
    assert site.caller(site.chat(KEYS["bob"], bob))[1] == "chat:bob"


@pytest.mark.parametrize(
    "headers",
    [
        [("x-end-user-id", "bob"), ("x-end-user-id", "root")],
        [("x-end-user-id", "{{LIBRECHAT_USER_ID}}")],
        [("x-end-user-id", "")],
        [("x_end_user_id", "bob")],
        [],
    ],
    ids=["two values", "placeholder", "empty", "other spelling", "none"],
)
def test_a_front_end_that_names_nobody_is_refused(
    site: Site, headers: list[tuple[str, str]]
) -> None:
    assert site.chat(KEYS["bob"], *headers).status_code == 400


JWT_METADATA = "envoy.filters.http.jwt_authn"


def forgery() -> dict[str, Any]:
    """An EnvoyFilter of another team that writes what a jwt_authn filter would have verified."""
    rules = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config"
    authz = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
    written = {"metadata_namespace": JWT_METADATA, "key": "payload", "value": '{"sub": "root"}'}
    rule = {"header": ":path", "on_header_present": {**written, "type": "STRING"}}
    manager = {"name": "envoy.filters.network.http_connection_manager"}
    anchor = {**manager, "subFilter": {"name": "envoy.filters.http.ext_authz"}}
    match = {"context": "GATEWAY", "listener": {"filterChain": {"filter": anchor}}}
    writer = {
        "name": "other.writer",
        "typed_config": {"@type": rules, "request_rules": [rule]},
    }
    reader = {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {"@type": authz, "metadata_context_namespaces": [JWT_METADATA]},
    }
    patches = [
        {"applyTo": "HTTP_FILTER", "match": match, "patch": {"operation": op, "value": value}}
        for op, value in (("INSERT_BEFORE", writer), ("MERGE", reader))
    ]
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "other-team", "namespace": "istio-ingress"},
        "spec": {
            "priority": 90,
            "workloadSelector": {"labels": {"istio": "ingressgateway"}},
            "configPatches": patches,
        },
    }


def test_claims_that_another_filter_writes_decide_nothing(site: Site) -> None:
    forged = forgery()
    site.mesh.apply(forged)
    listeners = "/config_dump?resource=dynamic_listeners"
    wait_until(lambda: "other.writer" in site.mesh.admin(listeners), "the forgery")
    try:
        assert code(site.chat(None)) == (401, "missing_api_key")
        assert site.caller(site.chat(site.issuer.token().decode()))[1] == "corp:alice"
        assert site.caller(site.chat(KEYS["alice"]))[1] == "alice"
    finally:
        site.mesh.api.delete(forged)
        wait_until(lambda: "other.writer" not in site.mesh.admin(listeners), "its end")


def test_a_key_at_run_time_counts_from_its_issue_to_its_revocation(admitted: Site) -> None:
    issued = admitted.manage("POST", "/api/v1/tenants/acme/keys", {"user": "rita"})
    assert issued.status_code == 201, issued.text
    key, secret = issued.json()["key"]["id"], issued.json()["secret"]

    wait_until(lambda: admitted.chat(secret).status_code == 200, "the key on every replica")
    assert admitted.caller(admitted.chat(secret)) == ("acme", "rita", key)
    assert admitted.manage("POST", f"/api/v1/keys/{key}/revoke").status_code == 200
    wait_until(lambda: admitted.chat(secret).status_code == 401, "the revocation")
    refusals = [code(admitted.chat(secret)) for _ in range(6)]
    assert set(refusals) == {(401, "invalid_api_key")}


def test_the_api_and_the_data_path_have_doors_of_their_own(admitted: Site) -> None:
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    at_data = [
        httpx.get(f"{admitted.mesh.url}{path}", headers={**headers, "host": host})
        for path in ("/api/v1/tenants", "/api/v1/openapi.json")
        for host in ("localhost", API_HOST)
    ]
    at_api = [admitted.manage("GET", path) for path in ("/v1/models", "/metrics", "/")]

    assert {answer.status_code for answer in at_data} == {404}
    assert {answer.status_code for answer in at_api} <= {403, 404}


def test_the_api_wants_a_token_behind_its_door(admitted: Site) -> None:
    for forged in ("", "Bearer " + "x" * 40, f"Bearer {KEYS['alice']}"):
        answer = admitted.manage("GET", "/api/v1/tenants", authorization=forged)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"


def test_envoy_refuses_nothing_that_istiod_sends(site: Site) -> None:
    rejected = {name for name, count in site.mesh.stats().items() if "rejected" in name and count}

    assert not {name for name in rejected if "update" in name}
