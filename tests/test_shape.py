"""The sizes that CONTRIBUTING promises: small files, short functions, prose that reads at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import prose

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "accesslog",
    "bench",
    "dashboards",
    "extauthz",
    "extproc",
    "headgate",
    "protos",
    "ratelimit",
)
FILE_LINES = 300
FUNCTION_LINES = 40


def sources(suffix: str) -> list[Path]:
    """The hand-written files of the product, and of the bench."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob(f"*{suffix}")]
    return sorted(file for file in files if "_gen" not in file.parts)


def documents() -> list[Path]:
    """Every document that a reader opens."""
    return sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "istio").rglob("*.md")]
    )


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file and its lines, from `def` to the last one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("suffix", [".py", ".lua"])
def test_no_file_is_longer_than_300_lines(suffix: str) -> None:
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sources(suffix)}
    assert len(lines) > 5
    assert [f"{file}: {count}" for file, count in lines.items() if count > FILE_LINES] == []


def test_no_function_is_longer_than_40_lines() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{name}: {lines} lines"
        for file in sources(".py")
        for name, lines in functions(file)
        if lines > FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("file", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_document_reads_at_once(file: Path) -> None:
    assert [str(finding) for finding in prose.findings(file)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_and_comments_read_at_once(room: str) -> None:
    files = [file for file in [*sources(".py"), *sources(".lua")] if (ROOT / room) in file.parents]
    assert [str(finding) for file in files for finding in prose.findings(file)] == []
