"""Each file makes one mistake in a good mesh, and the check finds exactly that mistake."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headgate.istio_check.check import check
from headgate.istio_check.findings import Finding, MeshRule, Severity
from tests.istio.good import changed, good_mesh

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


def case(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    return loaded


def shown(finding: Finding) -> str:
    """A finding without its file and line, which are the good mesh's."""
    where = ": ".join(part for part in (finding.object, finding.path) if part)
    text = f"{finding.message}; write: {finding.remedy}"
    return f"{finding.severity}: {finding.rule}: {where}: {text}"


def test_a_good_mesh_has_no_finding() -> None:
    assert check(good_mesh()).findings == ()


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_exactly_the_mistake_is_found(file: Path) -> None:
    loaded = case(file)
    findings = check(changed(loaded["edits"])).findings

    assert [shown(finding) for finding in findings] == loaded["findings"]


@pytest.mark.parametrize("rule", MeshRule)
def test_every_rule_has_a_mistake_of_its_own(rule: MeshRule) -> None:
    own = [file for file in BAD if file.stem == rule or file.stem.startswith(f"{rule}-")]

    assert any(f": {rule}: " in line for file in own for line in case(file)["findings"])


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_finding_has_the_line_of_the_value_that_is_wrong(file: Path) -> None:
    for finding in check(changed(case(file)["edits"])).findings:
        if finding.file == "added.yaml":
            continue
        lines = Path(finding.file).read_text(encoding="utf-8").splitlines()
        assert 0 < finding.line <= len(lines)
        assert lines[finding.line - 1].strip()


def test_only_errors_fail_a_build() -> None:
    warned = check(changed(case(Path(__file__).parent / "bad" / "drift.yaml")["edits"]))
    failed = check(changed(case(Path(__file__).parent / "bad" / "weights.yaml")["edits"]))

    assert [finding.severity for finding in warned.findings] == [Severity.WARNING]
    assert not warned.has_errors
    assert failed.has_errors
