"""People who log in at a real box: on a command line by the device flow, and by a browser."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.box import policy, running_box
from tests.envoy.conftest import Upstream
from tests.identity.login_issuer import CLI, WEB, WEB_SECRET, LoginIssuer
from tests.patience import PATIENCE_S
from tests.ports import free_port
from tests.postgres_server import temporary_folder


@dataclass
class Door:
    """The API of a box with an issuer, and a home folder for the command line."""

    url: str
    home: Path
    issuer: LoginIssuer

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headgate", *words, "--api", self.url]
        environment = {**os.environ, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment
        )


@pytest.fixture(scope="module")
def door(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("login")
    issuer = LoginIssuer()
    issuer.now_s, issuer.interval_s = int(time.time()), 1
    secret = home / "client-secret"
    secret.write_text(WEB_SECRET)
    with issuer.serve() as url, temporary_folder() as folder:
        text = policy(upstream.url) + (
            f"issuers: {{corp: {{issuer: '{url}', audience: headgate,"
            f" browser_login: {{client_id: {WEB}, secret_file: {secret}}},"
            f" device_login: {{client_id: {CLI}}},"
            " tenants: [{tenant: acme, groups: ml, role: admin}]}}\n"
        )
        port = free_port()
        options = ("--database-dir", str(folder / "db"), "--api", f"127.0.0.1:{port}")
        with running_box(home, text, *options):
            yield Door(f"http://127.0.0.1:{port}", home, issuer)


def test_a_login_of_the_command_line_serves_all_commands_until_the_log_out(door: Door) -> None:
    before = door.run("tenants", "list")
    logged_in = door.run("login")
    issued = door.run("keys", "issue", "--tenant", "acme", "--user", "rita")
    out = door.run("logout")

    assert before.returncode == 1
    assert f"headgate login --api {door.url}" in before.stderr
    assert logged_in.returncode == 0, logged_in.stderr
    assert "confirm the code WDJB-MJHT" in logged_in.stderr
    assert logged_in.stdout == f"You are logged in at {door.url}: acme (admin)\n"
    assert issued.stdout.startswith("sk-hg-"), issued.stderr
    assert out.returncode == 0
    assert door.issuer.refresh == ""
    assert door.run("tenants", "list").returncode == 1


def test_a_browser_on_this_machine_logs_in_without_tls_and_out_again(door: Door) -> None:
    own = {"sec-fetch-site": "same-origin", "origin": door.url}
    with httpx.Client(base_url=door.url) as browser:
        begun = browser.get("/login/corp")
        back = httpx.get(begun.headers["location"]).headers["location"]
        assert browser.get(back).status_code == 303
        cookie = browser.cookies["headgate-session"]
        assert re.fullmatch(r"[\w-]{43}", cookie)
        assert browser.get("/api/v1/tenants").json()["data"][0]["role"] == "admin"
        assert browser.post("/logout", headers=own).status_code == 303
    with httpx.Client(base_url=door.url, cookies={"headgate-session": cookie}) as thief:
        assert thief.get("/api/v1/tenants").status_code == 401
