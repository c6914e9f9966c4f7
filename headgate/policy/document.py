"""YAML text to plain values that know their line.

Only the parser is ruamel's: values are composed here from its events. That reads the
core schema of YAML 1.2 and nothing else (no tags, no dates, `no` is text), reports every
duplicate key, bounds what aliases may blow up to, and is twice as fast as its loader.
ruamel's C parser is used when `ruamel.yaml.clib` is installed: the same events and errors, but
it also refuses a ':' in text without quotes within {} and [].
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from headgate.policy.problems import Problem, Rule, hint, shown

Path: TypeAlias = tuple[str | int, ...]

MAX_DEPTH = 20
MAX_VALUES = 2_000_000
"""Values in one file, aliases written out: 40,000 keys are 280,000."""

_INT = re.compile(r"[-+]?[0-9]{1,30}")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Everything but YAML 1.2's printable characters (5.1)."""
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
_UNALIGNED = ("this line does not line up with one above", "keys of one mapping line up")
_SYNTAX_HINTS = {
    "mapping values": (
        "a ':' cannot stand here",
        "text that holds ': ' stands in quotes, and the line above ends in ':'",
    ),
    "unexpected ':'": (
        "a ':' stands in text without quotes within {} or []",
        'put the text in quotes, as in {upstream: "http://127.0.0.1:8000"}',
    ),
    "unexpected end of stream": (
        "the quote that opens here is not closed",
        "quoted text ends with its quote",
    ),
    "',' or ']'": ("a '[' is not closed before here", "',' parts values and ']' ends them"),
    "',' or '}'": ("a '{' is not closed before here", "',' parts entries and '}' ends them"),
    "block end": _UNALIGNED,
    "expected key": _UNALIGNED,
    "cannot start any token": ("a character cannot stand here", "indent by spaces, quote text"),
    "unknown escape": (
        "an unknown escape stands in the text quoted here",
        "in single quotes a \\ is a plain one",
    ),
}
"""Words of the parser (Python's or C's), and for them: what is wrong, and what is allowed."""


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
    """What a file is called in messages, and the keys at its top."""

    noun: str
    keys: str


POLICY = FileKind("policy", "models and tenants")


def compose(
    text: str,
    kind: FileKind = POLICY,
    plain: Callable[[str], object] | None = None,
) -> tuple[YamlMapping | None, list[Problem]]:
    """Reads one document whose top is a mapping. None when there is nothing to go on with.

    A file that can be read but has, say, a key twice gives both the mapping and problems.
    `plain` says what an unquoted value means; `scalar` if not given.
    """
    events = YAML(typ="safe").parse(io.StringIO(text))
    composer = _Composer(events, kind, plain or scalar)
    try:
        return composer.document(), composer.problems
    except _StopError as stop:
        return None, [*composer.problems, stop.problem]
    except MarkedYAMLError as error:
        return None, [*composer.problems, _syntax_problem(error)]
    except (YAMLError, ValueError):
        # Characters that YAML forbids (ReaderError), and escapes beyond Unicode (chr's ValueError).
        return None, [*composer.problems, _character_problem(text, kind)]


def scalar(text: str) -> str | int | bool | Decimal | None:
    """What an unquoted text means in YAML 1.2's core schema, without its hex and octal numbers."""
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


class _StopError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


class _Composer:
    """Builds values from parser events; recursion is bounded by MAX_DEPTH."""

    def __init__(
        self, events: Iterator[Event], kind: FileKind, plain: Callable[[str], object]
    ) -> None:
        self.problems: list[Problem] = []
        self._events = events
        self._kind = kind
        self._plain = plain
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def document(self) -> YamlMapping:
        root: Any = None
        seen = False
        for event in self._events:
            if isinstance(event, DocumentStartEvent) and seen:
                what = "a second YAML document begins here"
                allowed = f"one file holds one {self._kind.noun}"
                self._stop(Rule.SEVERAL_DOCUMENTS, what, allowed, (), event)
            if isinstance(event, NodeEvent):
                seen = True
                root = self._value(event, ())
                line = _line(event)
        allowed = f"a {self._kind.noun} is a mapping with the keys {self._kind.keys}"
        if root is None:
            raise _StopError(Problem(Rule.EMPTY_FILE, "the file is empty", allowed))
        if not isinstance(root, YamlMapping):
            what = f"the file is not a mapping (value {shown(root)})"
            raise _StopError(Problem(Rule.NOT_MAPPING, what, allowed, line=line))
        return root

    def _value(self, event: Any, path: Path) -> Any:
        before = self._values
        self._count(1, path, event)
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        if getattr(event, "tag", None) is not None:
            what = "a YAML tag stands here"
            self._add(Rule.TAG, what, "values stand without '!'", path, event)
        if isinstance(event, ScalarEvent):
            value: Any = self._plain(event.value) if event.implicit[0] else event.value
        elif len(path) >= MAX_DEPTH:
            what = f"values nest deeper than {MAX_DEPTH} levels"
            allowed = f"a {self._kind.noun} needs fewer"
            self._stop(Rule.TOO_DEEP, what, allowed, (), event)
        elif isinstance(event, MappingStartEvent):
            value = self._mapping(event, path)
        else:
            value = self._list(path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _mapping(self, start: MappingStartEvent, path: Path) -> YamlMapping:
        mapping = YamlMapping(_line(start))
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._key(event, path)
            value = self._given(next(self._events), (*path, key), event)
            if key in mapping:
                what = f"the key stands twice; first on line {mapping.lines[key]}"
                self._add(Rule.DUPLICATE_KEY, what, "keep one of them", (*path, key), event)
            else:
                mapping[key] = value
                mapping.lines[key] = _line(event)
        return mapping

    def _key(self, event: Event, path: Path) -> str:
        if not isinstance(event, ScalarEvent):
            what = "a key is not a plain text"
            self._stop(Rule.KEY_NOT_TEXT, what, "keys are names, as in `acme:`", path, event)
        return str(event.value)

    def _list(self, path: Path) -> YamlList:
        items = YamlList()
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            items.lines.append(_line(event))
            items.append(self._given(event, (*path, len(items)), event))
        return items

    def _given(self, event: Any, path: Path, place: Event) -> Any:
        """A value that should not be empty; `place` is where it would be looked for."""
        value = self._value(event, path)
        if value is None:
            advice = "give it a value or remove it"
            self._add(Rule.NO_VALUE, "has no value", advice, path, place)
        return value

    def _alias(self, event: AliasEvent, path: Path) -> Any:
        known = self._anchors.get(event.anchor)
        if known is None:
            what = f"no anchor &{event.anchor} stands above" + hint(event.anchor, self._anchors)
            self._stop(Rule.UNKNOWN_ANCHOR, what, "write the anchor before its alias", path, event)
        value, size = known
        self._count(size, path, event)
        return value

    def _count(self, size: int, path: Path, event: Event) -> None:
        self._values += size
        if self._values > MAX_VALUES:
            what = f"the file holds more than {MAX_VALUES} values, its aliases written out"
            self._stop(Rule.TOO_MANY_VALUES, what, "split it, or use fewer aliases", path, event)

    def _add(self, rule: Rule, what: str, allowed: str, path: Path, event: Event) -> None:
        self.problems.append(Problem(rule, what, allowed, path, _line(event)))

    def _stop(self, rule: Rule, what: str, allowed: str, path: Path, event: Event) -> NoReturn:
        raise _StopError(Problem(rule, what, allowed, path, _line(event)))


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _syntax_problem(error: MarkedYAMLError) -> Problem:
    what, allowed = "this is not YAML", "check quotes, brackets and indentation around here"
    for words, ours in _SYNTAX_HINTS.items():
        if words in f"{error.problem}":
            what, allowed = ours
            break
    mark, opened = error.problem_mark, error.context_mark
    if "quote" in what and opened is not None:
        mark = opened
    elif "is not closed" in what and opened is not None:
        what += f"; it opens on line {opened.line + 1}"
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return Problem(Rule.SYNTAX, what, allowed, line=line, column=column)


def _character_problem(text: str, kind: FileKind) -> Problem:
    """The parsers' own position is of no use: Python's counts characters, C's bytes."""
    allowed = f"a {kind.noun} is printable text in UTF-8"
    found = _FORBIDDEN.search(text)
    if found is None:
        return Problem(Rule.SYNTAX, "the file holds an impossible character", allowed)
    before = text[: found.start()]
    line, column = before.count("\n") + 1, found.start() - before.rfind("\n")
    what = f"a control character (U+{ord(found[0]):04X}) stands here"
    return Problem(Rule.SYNTAX, what, allowed, line=line, column=column)
