"""Tokens and end users through the real Envoy: from the client's headers to limits and records."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from headgate.identity.issuers.source import RETRY_S
from tests.box import KEYS, Box, digest, policy, running_box, small_chat
from tests.identity.issuer import TestIssuer, signed

SECRET = b"a secret of more than thirty-two bytes"
LIMITS = "[{count: requests, limit: 2, per: year, each: user}]"
FORGED = {
    "x-openwebui-user-id": "root",
    "x-openwebui-user-groups": "admins",
    "x-openwebui-user-email": "root@example.org",
    "x-end-user-id": "root",
    "x-end-user-groups": "admins",
    "x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/jobs/sa/nightly",
}


@dataclass
class Model:
    """A server in the place of vLLM, and the headers of the requests that reached it."""

    url: str = ""
    received: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Site:
    """A box with an issuer of tokens and a server behind it."""

    box: Box
    issuer: TestIssuer
    model: Model

    def chat(self, credential: str, **headers: str) -> httpx.Response:
        """One small chat with this key or token."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send([("authorization", f"Bearer {credential}"), *named.items()])

    def send(self, headers: list[tuple[str, str]]) -> httpx.Response:
        url = f"{self.box.url}/v1/chat/completions"
        return httpx.post(url, json=small_chat(), headers=headers)

    def token(self, **claims: object) -> str:
        now_s = int(time.time())
        return self.issuer.token(**{"iat": now_s, "exp": now_s + 300, **claims}).decode()


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model()
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            model.received.append({name.lower(): value for name, value in self.headers.items()})
            body = json.dumps({"choices": [], "model": "tiny", "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield model
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def site(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("box-identity")
    (folder / "secret").write_bytes(SECRET)
    issuer = TestIssuer()
    with issuer.serve() as url:
        more = f"""\
  web:
    models: [tiny]
    limits: {LIMITS}
    keys:
      - {{user: chat, id: front, sha256: "{digest(KEYS["dave"])}",
         acts_for: {{header: x-openwebui-user-id}}}}
      - {{user: safe, id: signed, sha256: "{digest("sk-signed")}",
         acts_for: {{header: x-openwebui-user-jwt, secret_file: {folder / "secret"}}}}}
    workloads: [{{user: nightly, spiffe: "spiffe://cluster.local/ns/jobs/sa/nightly"}}]
issuers:
  corp:
    issuer: {url}
    audience: [headgate]
    tenants: [{{tenant: web, groups: [ml]}}, {{tenant: acme, groups: [acme]}}]
"""
        text = policy(model.url, more=more)
        with running_box(folder, text, "--auth-failures-per-minute", "100000") as box:
            yield Site(box, issuer, model)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_token_passes_and_its_person_is_in_the_record(site: Site) -> None:
    answer = site.chat(site.token(sub="auth0|7"))

    assert answer.status_code == 200, answer.text
    record = site.box.record_of(answer.headers["x-request-id"])
    assert (record["tenant"], record["user"], record["key"]) == ("web", "corp:auth0|7", "corp")
    assert site.model.received[-1]["x-headgate-user"] == "corp:auth0|7"
    assert "authorization" not in site.model.received[-1]


def test_a_limit_of_each_user_counts_the_people_of_a_front_end_apart(site: Site) -> None:
    asked = [
        site.chat(KEYS["dave"], x_openwebui_user_id=person)
        for person in ("ann", "ann", "ann", "ben")
    ]

    assert [answer.status_code for answer in asked] == [200, 200, 429, 200]
    record = site.box.record_of(asked[3].headers["x-request-id"])
    assert (record["user"], record["key"]) == ("chat:ben", "front")
    shown = httpx.get(
        f"{site.box.url}/v1/headgate/limits",
        headers={"authorization": f"Bearer {KEYS['dave']}", "x-openwebui-user-id": "ann"},
    )
    assert shown.json()["data"][0]["remaining"] == 0


def test_forged_headers_decide_nothing_and_never_reach_the_model(site: Site) -> None:
    people = {KEYS["alice"]: "alice", site.token(sub="forger"): "corp:forger"}
    for credential, user in people.items():
        answer = site.send([("authorization", f"Bearer {credential}"), *FORGED.items()])
        assert answer.status_code == 200
        received = site.model.received[-1]
        assert received["x-headgate-user"] == user
        assert not {name for name in FORGED if name != "x-forwarded-client-cert"} & set(received)
    assert code(site.send(list(FORGED.items()))) == (401, "missing_api_key")


@pytest.mark.parametrize(
    "values", [["a", "b"], ["{{LIBRECHAT_USER_ID}}"], [""], ["a,b"], []], ids=str
)
def test_a_front_end_names_exactly_one_person(site: Site, values: list[str]) -> None:
    headers = [("authorization", f"Bearer {KEYS['dave']}")]
    headers += [("x-openwebui-user-id", value) for value in values]

    assert code(site.send(headers)) == (400, "invalid_end_user")


def test_a_signed_header_counts_and_its_plain_fall_back_does_not(site: Site) -> None:
    now_s = int(time.time())
    claims = {"sub": "5c0b", "iss": "open-webui", "iat": now_s, "exp": now_s + 300}
    token = signed({"alg": "HS256", "typ": "JWT"}, claims, SECRET).decode()

    answer = site.chat("sk-signed", x_openwebui_user_jwt=token)
    assert answer.status_code == 200
    assert site.model.received[-1]["x-headgate-user"] == "safe:5c0b"
    assert "x-openwebui-user-jwt" not in site.model.received[-1]
    plain = site.chat("sk-signed", x_openwebui_user_id="5c0b")
    assert code(plain) == (400, "invalid_end_user")


def test_bad_tokens_get_their_errors_and_leave_no_trace_of_themselves(site: Site) -> None:
    now_s = int(time.time())
    bad = {
        site.token(exp=now_s - 60): (401, "token_expired"),
        site.token(aud="other"): (401, "invalid_token"),
        site.token(iss="https://evil.example.org"): (401, "invalid_token"),
        site.token(groups=["nobody"]): (403, "tenant_not_found"),
    }
    for token, expected in bad.items():
        answer = site.chat(token)
        assert code(answer) == expected
        assert token.rpartition(".")[2] not in answer.text
        assert answer.headers.get("www-authenticate", "").startswith("Bearer") == (
            expected[0] == 401
        )
    kept = [path.read_text(errors="replace") for path in site.box.folder.rglob("*.jsonl")]
    kept += [path.read_text(errors="replace") for path in site.box.folder.rglob("*.log")]
    assert not [token for token in bad for text in (*kept, *site.box.lines) if token in text]


def test_a_person_of_two_tenants_chooses_by_the_header_of_the_official_clients(site: Site) -> None:
    token = site.token(sub="two", groups=["ml", "acme"])

    assert code(site.chat(token)) == (403, "tenant_not_found")
    answer = site.chat(token, OpenAI_Organization="acme")
    assert answer.status_code == 200
    assert site.model.received[-1]["x-headgate-tenant"] == "acme"
    assert "openai-organization" not in site.model.received[-1]


def test_a_flood_of_unknown_keys_costs_few_fetches(
    site: Site,
) -> None:
    before, begun_s = site.issuer.fetches, time.monotonic()
    answers = [site.chat(site.token()) for _ in range(3)]
    flood = [site.chat(site.issuer.token({"kid": f"k{number}"}).decode()) for number in range(40)]

    assert {answer.status_code for answer in answers} <= {200, 429}
    assert {code(answer) for answer in flood} == {(401, "invalid_token")}
    assert site.issuer.fetches - before <= 1 + (time.monotonic() - begun_s) / RETRY_S
