"""Every file, and every heading, that a page of the documentation names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("istio/*.md")]
    )
    if page.name != "CHANGELOG.md"  # it names files of earlier releases
]
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."}
BASES = (ROOT, ROOT / "tests", ROOT / "istio")
"""Pages about tests or the mesh name files by their place below these."""

_CODE = re.compile(r"```.*?```|`([^`\n]+)`", re.DOTALL)
_PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
_SUFFIX = re.compile(r"\.(?:py|lua|md|yaml|toml|lock|proto|txt|json)$")
_PLACEHOLDER = re.compile(r"\b[A-Z]+\b(?=/)")
_LINK = re.compile(r"\]\(([^)#:\s]*)#([^)\s]+)\)")


def paths_of(text: str) -> list[str]:
    """The pieces of code that look like a file or a folder of the repository."""
    codes = [match[1] for match in _CODE.finditer(text) if match[1]]
    words = [code.partition(": ")[0] for code in codes]
    return [word for word in words if _PATH.fullmatch(word) and _is_ours(word)]


def _is_ours(word: str) -> bool:
    """`headgate/headgate` may be a namespace and a name: a folder has a `/` at its end, too."""
    folder, slash, _ = word.partition("/")
    is_folder = folder == "tests" or (folder in FOLDERS and word.endswith("/"))
    return bool(slash) and (is_folder or bool(_SUFFIX.search(word)))


def exists(word: str) -> bool:
    """Whether it is a file or a folder; a part in capitals may have any name."""
    pattern = _PLACEHOLDER.sub("*", word)
    return any(any(base.glob(pattern)) for base in BASES)


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page, and those written out."""
    anchors: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    for title in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in anchors:
            number += 1
        anchors.add(name)
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    missing = [word for word in paths_of(page.read_text("utf-8")) if not exists(word)]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_heading_that_a_page_links_to_exists(page: Path) -> None:
    links = _LINK.findall(page.read_text("utf-8"))
    missing = [
        (target, anchor)
        for target, anchor in links
        if anchor not in anchors_of(((page.parent / target) if target else page).read_text("utf-8"))
    ]

    assert missing == []


def test_paths_are_told_from_other_code() -> None:
    text = (
        "`istio/` `a/b` `core/x.py: test_x` `gone/x.py` `/v1/x.py` `x.py` `headgate/headgate` `m/`"
    )

    assert paths_of(text) == ["istio/", "core/x.py", "gone/x.py"]
