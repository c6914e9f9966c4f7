"""The commands that print and end."""

from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.cli import cli
from headgate.core.errors import OperatorError
from headgate.policy import load_policy

POLICY = """\
models:
  tiny:
    upstream: http://127.0.0.1:8000
    context_tokens: 8192
tenants:
  acme:
    models: [tiny]
    keys:
"""


def test_a_new_key_is_shown_once_with_the_yaml_that_admits_it(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["keys", "new", "--tenant", "acme", "--user", "alice"])
    secret = shown.stdout.splitlines()[0]
    path = tmp_path / "headgate.yaml"
    entries = [line for line in shown.stdout.splitlines() if line.strip().startswith("- {")]
    path.write_text(POLICY + "\n".join(entries) + "\n")

    assert shown.exit_code == 0
    assert shown.stdout.count(secret) == 1
    caller = load_policy(path).keys[sha256(secret.encode()).digest()]
    assert (caller.tenant, caller.user) == ("acme", "alice")


def test_two_new_keys_differ() -> None:
    command = ["keys", "new", "--tenant", "acme", "--user", "alice"]

    assert CliRunner().invoke(cli, command).stdout != CliRunner().invoke(cli, command).stdout


def test_check_prints_a_summary_of_a_good_policy() -> None:
    example = Path(__file__).parents[2] / "examples" / "headgate.yaml"
    checked = CliRunner().invoke(cli, ["check", str(example)])

    assert checked.exit_code == 0
    assert "tenant" in checked.stdout


def test_check_names_every_mistake_of_a_bad_policy(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(POLICY.replace("8192", "0").replace("http:", "ftp:") + "more: 1\n")
    checked = CliRunner().invoke(cli, ["check", str(path)])

    assert isinstance(checked.exception, OperatorError)
    lines = str(checked.exception).splitlines()
    assert len(lines) >= 3
    assert all(str(path) in line for line in lines)


@pytest.mark.parametrize("address", ["8080", "localhost:", "localhost:http", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_a_usage_error(address: str) -> None:
    shown = CliRunner().invoke(cli, ["up", "--demo", "--listen", address])

    assert shown.exit_code == 2
    assert "HOST:PORT" in shown.stderr


def test_the_demo_takes_no_other_policy() -> None:
    assert CliRunner().invoke(cli, ["up", "--demo", "--policy", "x.yaml"]).exit_code == 2


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
def test_a_certificate_and_its_key_go_together(option: str) -> None:
    shown = CliRunner().invoke(cli, ["up", "--demo", option, "door.pem"])

    assert shown.exit_code == 2
    assert "go together" in shown.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:4317", "http://a:4318/v1/traces"])
def test_a_collector_that_envoy_cannot_call_is_an_error(url: str) -> None:
    shown = CliRunner().invoke(cli, ["up", "--demo", "--otlp", url])

    assert isinstance(shown.exception, OperatorError)
    assert repr(url) in str(shown.exception)


@pytest.mark.parametrize("name", ["", "ac me", 'a"b', "sk-hg-0123", "x" * 65])
def test_a_new_key_is_for_names_that_a_policy_takes(name: str) -> None:
    shown = CliRunner().invoke(cli, ["keys", "new", "--tenant", "acme", "--user", name])

    assert shown.exit_code == 2
    assert "1 to 64 letters" in shown.stderr
    assert shown.stdout == ""


def test_check_reads_the_files_of_envoyproxy_ratelimit(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("domain: shop\ndescriptors:\n- key: a\n  rate_limit: {unit: day}\n")
    checked = CliRunner().invoke(cli, ["check", "--ratelimit-config", str(tmp_path)])
    assert (checked.exit_code, checked.stdout) == (0, "domain shop: 1 limit\n")

    path.write_text("domain: shop\nlimit: 5\n")
    checked = CliRunner().invoke(cli, ["check", "--ratelimit-config", str(path)])
    assert str(checked.exception).startswith(f"{path}:2: limit: is not a known key")


def test_check_of_nothing_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["check"]).exit_code == 2
