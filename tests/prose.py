"""Finds prose that a stranger stumbles over: `python -m tests.prose PATH...` prints each place.

The rules are those of CONTRIBUTING: at most 25 words a sentence, 80 a paragraph, 110 characters
a line of prose, and none of the turns of phrase in `_PHRASES`. Code, tables and links do not count.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SENTENCE_WORDS = 25
PARAGRAPH_WORDS = 80
LINE_CHARACTERS = 110

_PHRASES = {
    "a headless clause": re.compile(
        r"(?:^|[.:;] )(?:Who|Whoever|What|Whatever|Which|Whose|That which)\b(?![^.]*\?)"
    ),
    "`stands`": re.compile(r"\b[Ss]tands?\b(?! for\b| in for\b| between\b)"),
    "`tells of`": re.compile(r"\b(?:tells?|told) of\b"),
    "`by then`": re.compile(r"\bby then\b"),
    "`is to be`": re.compile(r"\b(?:is|are|was|were) to be\b"),
    "`so many`": re.compile(r"\bso (?:many|much|long)\b(?! (?:as|that)\b)"),
}
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z`\"(*0-9])|(?<=\.\*\*)\s+")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A run of prose and the line on which it begins."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that breaks a rule."""

    path: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def findings(path: Path) -> Iterator[Finding]:
    """Every place of a file (.md, .py, .lua, .yaml) that breaks a rule."""
    source = path.read_text(encoding="utf-8")
    paragraphs = _READERS[path.suffix](source)
    if path.suffix == ".md":
        yield from _long_lines(path, source)
    for paragraph in paragraphs:
        yield from _of_paragraph(path, paragraph)


def _of_paragraph(path: Path, paragraph: Paragraph) -> Iterator[Finding]:
    text = _plain(paragraph.text)
    total = len(text.split())
    if total > PARAGRAPH_WORDS:
        yield Finding(path, paragraph.line, f"a paragraph of {total} words", text[:60])
    for sentence in _SENTENCE_END.split(text):
        words = len(sentence.split())
        if words > SENTENCE_WORDS:
            yield Finding(path, paragraph.line, f"a sentence of {words} words", sentence)
    for name, pattern in _PHRASES.items():
        for match in pattern.finditer(text):
            around = text[max(0, match.start() - 20) : match.end() + 40]
            yield Finding(path, paragraph.line, name, around)


def _plain(text: str) -> str:
    """The text without markup; a piece of code or a link's address counts as one word."""
    text = _LINK.sub(lambda match: match[1], text)
    text = _CODE.sub("`code`", text)
    return " ".join(text.replace("**", "").split())


def _long_lines(path: Path, source: str) -> Iterator[Finding]:
    for number, line in _prose_lines(source):
        if len(line) > LINE_CHARACTERS and " " in line.strip():
            yield Finding(path, number, f"a line of {len(line)} characters", line[:60])


def _prose_lines(source: str) -> Iterator[tuple[int, str]]:
    """The lines of a Markdown file that are neither code nor table."""
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith("|") and not line.startswith("    "):
            yield number, line


def _markdown(source: str) -> Iterator[Paragraph]:
    lines = list(_prose_lines(source))
    yield from _paragraphs(
        (number, "" if line.startswith(("#", "<")) else line) for number, line in lines
    )


def _python(source: str) -> Iterator[Paragraph]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                first = node.body[0].lineno
                lines = enumerate(text.splitlines(), first)
                yield from _paragraphs(lines)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from _paragraphs(
        (token.start[0], token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT
        and not token.string.startswith(("#!", "# noqa", "# type"))
    )


def _lua(source: str) -> Iterator[Paragraph]:
    yield from _paragraphs(_comments(source, "--"))


def _yaml(source: str) -> Iterator[Paragraph]:
    yield from _paragraphs(_comments(source, "#"))


def _comments(source: str, mark: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        text = line.strip()
        if text.startswith(mark):
            yield number, text.lstrip("-# ")


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[Paragraph]:
    """Joins lines that follow each other; a blank one, a gap or a list's mark begins anew."""
    first, last, parts = 0, -1, []
    for number, line in lines:
        begins = number != last + 1 or not line.strip() or _ITEM.match(line)
        if begins and parts:
            yield Paragraph(first, " ".join(parts))
            parts = []
        if line.strip():
            if not parts:
                first = number
            parts.append(_ITEM.sub("", line, count=1).strip())
        last = number
    if parts:
        yield Paragraph(first, " ".join(parts))


_SKIPPED = {"_gen", "bad", "cases"}
"""Folders of generated code, and of files that are wrong on purpose."""

_READERS = {".md": _markdown, ".py": _python, ".lua": _lua, ".yaml": _yaml}


def _files(paths: Iterable[str]) -> Iterator[Path]:
    for name in paths:
        path = Path(name)
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (
            file for file in files if file.suffix in _READERS and not _SKIPPED & {*file.parts}
        )


def main(paths: list[str]) -> int:
    """Prints what breaks a rule, and returns 1 if anything does."""
    found = [finding for path in _files(paths) for finding in findings(path)]
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
