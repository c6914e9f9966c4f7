"""One mistake each, made in a good mesh: exactly it is found."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headgate.istio_check.check import check
from headgate.istio_check.findings import Finding, Rule, Severity
from tests.istio.good import changed, good_mesh

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


def case(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    return loaded


def told(one: Finding) -> str:
    """A finding without its file and line: those are the good mesh's."""
    where = ": ".join(part for part in (one.object, one.path) if part)
    return f"{one.severity}: {one.rule}: {where}: {one.what}; write: {one.write}"


def test_a_good_mesh_has_no_finding() -> None:
    assert check(good_mesh()).findings == ()


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_exactly_the_mistake_is_found(file: Path) -> None:
    loaded = case(file)

    assert [told(one) for one in check(changed(loaded["edits"])).findings] == loaded["findings"]


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_a_mistake_of_its_own(rule: Rule) -> None:
    own = [file for file in BAD if file.stem == rule or file.stem.startswith(f"{rule}-")]

    assert any(f": {rule}: " in line for file in own for line in case(file)["findings"])


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_finding_of_an_object_has_the_line_of_what_it_is_about(file: Path) -> None:
    for one in check(changed(case(file)["edits"])).findings:
        if one.file == "added.yaml":
            continue
        lines = Path(one.file).read_text(encoding="utf-8").splitlines()
        assert 0 < one.line <= len(lines)
        assert lines[one.line - 1].strip()


def test_only_errors_fail_a_build() -> None:
    warned = check(changed(case(Path(__file__).parent / "bad" / "drift.yaml")["edits"]))
    failed = check(changed(case(Path(__file__).parent / "bad" / "weights.yaml")["edits"]))

    assert [one.severity for one in warned.findings] == [Severity.WARNING]
    assert not warned.has_errors
    assert failed.has_errors
