"""The management API of a real box, used through the command line."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import Upstream
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port
from tests.postgres_server import temporary_folder


class Managed:
    """A box with its API, and the command line that manages it."""

    def __init__(self, box: Box, url: str, token_file: Path, database: Path) -> None:
        self.box = box
        self.url = url
        self.token = token_file.read_text().strip()
        self.token_file, self._database = token_file, database
        self._options = ("--api", url, "--token-file", str(token_file))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headgate", *words, *self._options]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    def files(self) -> list[Path]:
        """All that the box and its PostgreSQL have written, but for the operator token."""
        found = [*self.box.folder.rglob("*"), *self._database.rglob("*")]
        return [path for path in found if path != self.token_file]

    def json(self, *words: str) -> dict:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self, secret: str) -> int:
        headers = {"authorization": f"Bearer {secret}"}
        url = f"{self.box.url}/v1/chat/completions"
        return httpx.post(url, json=small_chat(), headers=headers).status_code


@pytest.fixture(scope="module")
def managed(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    with temporary_folder() as folder:
        home = tmp_path_factory.mktemp("api")
        port, token = free_port(), home / "operator-token"
        options = (
            *("--database-dir", str(folder / "db"), "--auth-failures-per-minute", "1000000"),
            *("--api", f"127.0.0.1:{port}", "--operator-token-file", str(token)),
        )
        with running_box(home, policy(upstream.url), *options) as box:
            yield Managed(box, f"http://127.0.0.1:{port}", token, folder / "db")


def test_a_key_of_the_command_line_is_served_and_refused_soon_after_its_end(
    managed: Managed,
) -> None:
    issued = managed.json("keys", "issue", "--tenant", "acme", "--user", "rita")
    wait_until(lambda: managed.status(issued["secret"]) == 200, "the key", PATIENCE_S)

    managed.json("keys", "revoke", issued["key"]["id"])
    wait_until(lambda: managed.status(issued["secret"]) == 401, "the refusal", PATIENCE_S)


def test_an_edit_of_the_command_line_narrows_a_key_while_it_is_used(managed: Managed) -> None:
    words = ("--label", "project=search", "--limit", "tokens=100000/day", "--hours", "8")
    issued = managed.json("keys", "issue", "--tenant", "acme", "--user", "rita", *words)
    key, secret = issued["key"], issued["secret"]
    wait_until(lambda: managed.status(secret) == 200, "the key", PATIENCE_S)

    managed.json("keys", "edit", key["id"], "--model", "sql-expert", "--clear", "labels")
    wait_until(lambda: managed.status(secret) == 403, "the edit", PATIENCE_S)
    (edited,) = managed.json("keys", "edit", key["id"], "--clear", "models", "--clear", "end")
    wait_until(lambda: managed.status(secret) == 200, "the second edit", PATIENCE_S)

    assert (edited["labels"], edited["expires_at"], key["labels"]) == (
        {},
        None,
        {"project": "search"},
    )
    assert edited["limits"] == key["limits"] == [{"count": "tokens", "limit": 100000, "per": "day"}]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--limit", "tokens:5"),
        ("--label", "x"),
        ("--clear", "user"),
        ("--model", "tiny", "--clear", "models"),
    ],
    ids=" ".join,
)
def test_wrong_options_of_an_edit_are_exit_code_2(managed: Managed, words: tuple[str, ...]) -> None:
    assert managed.run("keys", "edit", "~0011223344556677", *words).returncode == 2


def test_tables_name_what_there_is(managed: Managed) -> None:
    issued = managed.json("keys", "issue", "--tenant", "acme", "--user", "tom", "--hours", "8")
    rotated = managed.run("keys", "rotate", issued["key"]["id"])

    assert rotated.stdout.startswith("sk-hg-")
    keys = managed.run("keys", "list", "--tenant", "acme").stdout
    assert keys.splitlines()[0].split()[:4] == ["id", "tenant", "user", "is_live"]
    assert issued["key"]["id"] in keys
    assert "acme" in managed.run("tenants", "list").stdout
    assert "key.rotate" in managed.run("audit", "list").stdout
    assert "the change log is whole" in managed.run("audit", "verify").stdout


def test_the_requests_of_a_box_are_found_in_its_ledger(managed: Managed) -> None:
    issued = managed.json("keys", "issue", "--tenant", "acme", "--user", "lena")

    def asks() -> bool:
        bearer = {"authorization": f"Bearer {issued['secret']}", "user-agent": "=cmd"}
        url = f"{managed.box.url}/v1/chat/completions"
        return httpx.post(url, json=small_chat(), headers=bearer).status_code == httpx.codes.OK

    wait_until(asks, "the key", PATIENCE_S)

    def lines(form: str) -> list[str]:
        done = managed.run("usage", "search", "--key", issued["key"]["id"], "--format", form)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    wait_until(lambda: bool(lines("jsonl")), "the record", PATIENCE_S)
    [record] = map(json.loads, lines("jsonl"))
    assert (record["user"], record["status"], record["model"]) == ("lena", 200, "tiny")
    [head, row] = csv.reader(lines("csv"))
    assert dict(zip(head, row, strict=True))["user_agent"] == "'=cmd"
    assert record["request_id"] in lines("table")[1]
    assert managed.run("usage", "search", "--ip", "nowhere").returncode == 1


def test_a_refusal_is_one_line_and_exit_code_1(managed: Managed) -> None:
    done = managed.run("keys", "issue", "--tenant", "nobody", "--user", "rita")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no such tenant" in done.stderr


def test_in_the_folder_of_a_box_its_commands_need_no_set_up(
    managed: Managed, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "headgate", "tenants", "list", "--api", managed.url]
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=bare)

    inside, elsewhere = run(managed.token_file.parent), run(tmp_path)

    assert (inside.returncode, "acme" in inside.stdout) == (0, True), inside.stderr
    assert elsewhere.returncode == 1
    assert "there is no login" in elsewhere.stderr


def test_the_port_of_the_data_serves_no_management_path(managed: Managed) -> None:
    headers = {"authorization": "Bearer sk-test-alice-0123456789abcdef"}
    for path in ("/api/v1/tenants", "/api/v1/openapi.json", "/v1/../api/v1/tenants"):
        assert httpx.get(managed.box.url + path, headers=headers).status_code == 404


def test_no_secret_is_in_a_log_a_record_a_metric_or_the_database(managed: Managed) -> None:
    issued = managed.json("keys", "issue", "--tenant", "acme", "--user", "rita")
    rotated = managed.json("keys", "rotate", issued["key"]["id"])
    wait_until(lambda: managed.status(rotated["secret"]) == 200, "the key", PATIENCE_S)
    managed.json("keys", "revoke", issued["key"]["id"])
    wait_until(lambda: managed.status(rotated["secret"]) == 401, "the refusal", PATIENCE_S)
    stranger, wrong = f"sk-hg-{'s' * 32}", f"wrong-token-{'w' * 32}"
    assert managed.status(stranger) == 401
    answers = [
        httpx.get(f"{managed.url}/api/v1/{path}", headers={"authorization": f"Bearer {wrong}"})
        for path in ("tenants", f"keys/{wrong}", f"tenants/{wrong}/keys")
    ]
    assert {answer.status_code for answer in answers} == {401}

    secrets = [issued["secret"], rotated["secret"], stranger, wrong, managed.token]
    kept = [path.read_bytes() for path in managed.files() if path.is_file()]
    kept += [line.encode() for line in managed.box.lines]
    kept += [answer.content for answer in answers]
    kept.append(httpx.get(f"{managed.box.admin_url}/metrics").content)
    assert not [secret for secret in secrets for text in kept if secret[6:].encode() in text]
