"""`headgate up` with `--tls-cert` and `--tls-key`, as an operator and a client meet it."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.box import Box, environment, policy, started_up
from tests.certificates import AUTHORITY, install, pem, shown
from tests.patience import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The demo with a certificate."""
    folder = tmp_path_factory.mktemp("tls")
    files = install(folder, "first")
    options = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    with started_up(folder, "--demo", *options) as box:
        yield box


def key_of(demo: Box) -> str:
    return next(word for line in demo.lines for word in line.split() if word.startswith("sk-"))


def shown_by(demo: Box) -> str:
    """The name in the certificate that a new connection is shown."""
    url = httpx.URL(demo.url)
    return shown(url.host, url.port or 443)


def test_the_printed_address_is_https_and_the_curl_line_works(demo: Box) -> None:
    curl = next(line for line in demo.lines if line.strip().startswith("curl "))
    answer = subprocess.run(["sh", "-c", f"{curl} -s"], capture_output=True, text=True)

    assert demo.url.startswith("https://")
    assert '"chat.completion"' in answer.stdout


def test_the_official_client_works_with_its_own_trust(demo: Box) -> None:
    trust = ssl.create_default_context(cafile=AUTHORITY)
    with openai.OpenAI(
        base_url=f"{demo.url}/v1", api_key=key_of(demo), http_client=httpx.Client(verify=trust)
    ) as client:
        stream = client.chat.completions.create(
            model="tiny", max_tokens=4, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        assert sum(len(chunk.choices) for chunk in stream) >= 4


def test_a_client_without_trust_is_not_served(demo: Box) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{demo.url}/v1/models")


def test_a_pair_that_is_rewritten_is_shown_and_a_broken_one_is_not(demo: Box) -> None:
    files = install(demo.folder, "first")
    wait_until(lambda: shown_by(demo) == "first", "the first certificate")
    files.certificate.write_text(pem("second"))
    files.key.write_text(pem("second.key"))
    wait_until(lambda: shown_by(demo) == "second", "the certificate written in place")

    install(demo.folder, "expired")
    said = wait_until(
        lambda: [
            line for line in (demo.folder / "up.log").read_text().splitlines() if "refu" in line
        ],
        "the line about the broken pair",
    )
    [line] = said
    assert "ERROR headgate.reload: certificate refused, the last good one stays in force: " in line
    assert line.endswith("door.pem: has expired")
    assert shown_by(demo) == "second"

    install(demo.folder, "first")
    wait_until(lambda: shown_by(demo) == "first", "the next good certificate")
    assert 'certificate_reloads_total{listener="door",result="refused"} 1.0' in demo.metrics()


def test_nobody_else_can_enter_the_folder_or_the_sockets(demo: Box) -> None:
    run = demo.folder / "run"
    sockets = [path for path in run.iterdir() if path.is_socket()]

    assert run.stat().st_mode & 0o777 == 0o700
    assert len(sockets) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in sockets)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("none.pem", "door.key", "none.pem: cannot be read (No such file or directory)"),
        ("expired.pem", "expired.key", "expired.pem: has expired"),
        ("door.pem", "expired.key", "is not the key of the first certificate in"),
    ],
)
def test_a_pair_that_cannot_be_used_is_one_line(
    tmp_path: Path, certificate: str, key: str, said: str
) -> None:
    install(tmp_path, "first")
    (tmp_path / "expired.pem").write_text(pem("expired"))
    (tmp_path / "expired.key").write_text(pem("expired.key"))
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    command = [sys.executable, "-m", "headgate", "up", "--listen", "127.0.0.1:0"]
    command += ["--admin", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S, env=environment()
    )

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("headgate: ")
    assert said in line
