"""A YAML file as plain values that know their line."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""The keys and list indices that lead from the top of a file to a value."""

_INT = re.compile(r"[-+]?[0-9]{1,30}")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_WORDS: dict[str, bool | None] = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "null": None,
    "Null": None,
    "NULL": None,
    "~": None,
    "": None,
}


class YamlMapping(dict[str, Any]):
    """A mapping that knows its own line and those of its keys, counted from 1."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class YamlList(list[Any]):
    """A list that knows the lines of its items, counted from 1."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: its name in messages, the keys at its top, and its levels of nesting."""

    noun: str
    keys: str
    max_depth: int = 20


POLICY = FileKind("policy", "models and tenants")


def scalar(text: str) -> str | int | bool | Decimal | None:
    """The value of an unquoted text by YAML 1.2's core schema, without hex and octal numbers."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first.isdigit() or first in "-+.":
        if _INT.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return Decimal(text)
    return text


def line_of(root: YamlMapping, path: Path) -> int:
    """The line of the value at `path`, or of the closest one above that exists."""
    node: object = root
    line = root.line
    for part in path:
        if isinstance(node, YamlMapping) and part in node:
            line = node.lines.get(str(part), line)
            node = node[str(part)]
        elif isinstance(node, YamlList) and isinstance(part, int) and part < len(node):
            line = node.lines[part]
            node = node[part]
        else:
            break
    return line
