"""The objects of YAML files, each with its file and line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.policy.composer import compose
from headgate.policy.document import FileKind, YamlMapping, line_of
from headgate.policy.document import Path as KeyPath
from headgate.policy.problems import PolicyRule

__all__ = [
    "KeyPath",
    "Manifest",
    "items",
    "mapping",
    "read_manifests",
    "read_plain",
    "text",
    "whole",
]

MAX_FILE_BYTES = 32 * 2**20
MAX_DEPTH = 100
"""Levels of nesting. Dashboards and the schemas of custom resources need more than 20."""
_KIND = FileKind("manifest", "apiVersion, kind and metadata", MAX_DEPTH)
_SEPARATOR = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object. `line` is the number of lines of its file before its document."""

    value: YamlMapping
    file: Path
    line: int = 0

    @property
    def kind(self) -> str:
        return text(self.value.get("kind"))

    @property
    def group(self) -> str:
        """The API group, "" for that of Services and Namespaces."""
        return text(self.value.get("apiVersion")).rpartition("/")[0]

    @property
    def name(self) -> str:
        return text(mapping(self.value.get("metadata")).get("name"))

    @property
    def namespace(self) -> str:
        return text(mapping(self.value.get("metadata")).get("namespace"))

    @property
    def spec(self) -> dict[str, object]:
        return mapping(self.value.get("spec"))

    @property
    def title(self) -> str:
        """`Kind namespace/name`, as findings show it."""
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {place}{self.name}".strip()

    def line_of(self, path: KeyPath) -> int:
        """The line, in its file, of the value at `path` or of the closest value above it."""
        return self.line + line_of(self.value, path)


def mapping(value: object) -> dict[str, object]:
    """The value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """The value if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """The value if it is text, else ""."""
    return value if isinstance(value, str) else ""


def whole(value: object) -> int | None:
    """The value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_manifests(file: Path, *, named: bool = True) -> list[Manifest]:
    """The objects of a file; if they are `named`, each must have a kind and an apiVersion.

    Raises OperatorError with every mistake of its YAML, one line each.
    """
    manifests, mistakes = [], []
    for line, document in _documents(_read(file)):
        if not document.strip():
            continue
        value, problems = compose(document, _KIND)
        # A patch removes a key with null.
        problems = [problem for problem in problems if problem.rule is not PolicyRule.NO_VALUE]
        mistakes += [f"{file}:{line + each.line}: {each.text}" for each in problems]
        if value is not None and not problems:
            if named and not (text(value.get("kind")) and text(value.get("apiVersion"))):
                mistakes.append(f"{file}:{line + value.line}: lacks apiVersion or kind")
            manifests.append(Manifest(value, file, line))
    if mistakes:
        raise OperatorError("\n".join(mistakes))
    return manifests


def read_plain(file: Path, kind: FileKind) -> Manifest:
    """A file with one mapping that is not an object. Raises OperatorError with every mistake."""
    value, problems = compose(_read(file), kind)
    if value is None or problems:
        raise OperatorError("\n".join(problem.render(str(file)) for problem in problems))
    return Manifest(value, file)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise OperatorError(f"{file}: is larger than 32 MiB")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file}: cannot be read: {error}") from error


def _documents(content: str) -> Iterator[tuple[int, str]]:
    """Each document, with the number of lines before it; without those of comments only."""
    start = 0
    for separator in [*_SEPARATOR.finditer(content), None]:
        end = len(content) if separator is None else separator.start()
        document = content[start:end]
        if any(line.strip() and not line.lstrip().startswith("#") for line in document.split("\n")):
            yield content.count("\n", 0, start), document
        start = end if separator is None else separator.end()
