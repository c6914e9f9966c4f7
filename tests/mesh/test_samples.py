"""Istio's own samples, beside our overlay, have no error: they are other people's YAML."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headgate.core.errors import OperatorError
from headgate.istio_check.check import check
from headgate.istio_check.findings import Severity
from headgate.istio_check.manifests import Manifest, read_manifests
from istio.crds.generate import fetched
from tests.istio.good import good_mesh

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
FOLDERS = ("samples", "tests/integration", "tests/testdata")
NOT_MANIFESTS = (
    "lacks apiVersion or kind",  # values of charts
    "a key is not text",  # templates
    "has no quotes",
    "not valid YAML",
    "is not a mapping",
)


@pytest.fixture(scope="module")
def module() -> Path:
    """The folder of the pinned module istio.io/istio."""
    lines = MAKEFILE.read_text(encoding="utf-8").splitlines()
    return fetched(next(line for line in lines if line.startswith("ISTIO :=")).split()[-1])


def objects_of(folder: Path) -> Iterator[tuple[Path, list[Manifest]]]:
    for file in sorted(folder.rglob("*.yaml")):
        try:
            yield file, read_manifests(file)
        except OperatorError as error:
            if not any(reason in str(error) for reason in NOT_MANIFESTS):
                raise


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_file_beside_our_overlay_has_no_error(module: Path, folder: str) -> None:
    mesh = good_mesh()
    files = list(objects_of(module / folder))
    assert files

    for _, objects in files:
        findings = check(replace(mesh, manifests=(*mesh.manifests, *objects))).findings
        errors = [each.render() for each in findings if each.severity is Severity.ERROR]
        assert errors == []


@pytest.mark.parametrize("folder", FOLDERS[:1])
def test_all_files_together_have_no_error(module: Path, folder: str) -> None:
    mesh = good_mesh()
    others = [each for _, objects in objects_of(module / folder) for each in objects]

    findings = check(replace(mesh, manifests=(*mesh.manifests, *others))).findings
    assert [each.render() for each in findings if each.severity is Severity.ERROR] == []
