"""Composes the values of a YAML document from the events of ruamel's parser.

Only the parser is ruamel's. The composer reads the core schema of YAML 1.2 and nothing else: no
tags, no dates, and `no` is text. It reports every duplicate key and bounds the size to which
aliases may expand. It is twice as fast as ruamel's loader.

With `ruamel.yaml.clib` installed, ruamel's C parser runs. It gives the same events and errors,
but it also refuses a ':' in text without quotes within {} and [].
"""

import io
from collections.abc import Callable, Iterator
from typing import Any

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

from headgate.policy.document import POLICY, FileKind, Path, YamlList, YamlMapping, scalar
from headgate.policy.problems import PolicyRule, Problem, hint, shown
from headgate.policy.syntax import character_problem, syntax_problem

MAX_VALUES = 2_000_000
"""The most values in a file with its aliases expanded. 40,000 keys are 280,000 values."""


def compose(
    text: str,
    kind: FileKind = POLICY,
    plain: Callable[[str], object] | None = None,
) -> tuple[YamlMapping | None, list[Problem]]:
    """Reads one document whose top is a mapping.

    The mapping is None if the text gives no mapping. A file that can be read but has, for
    example, a duplicate key gives both the mapping and problems. `plain` converts an unquoted
    text to its value; the default is `scalar`.
    """
    events = YAML(typ="safe").parse(io.StringIO(text))
    composer = _Composer(events, kind, plain or scalar)
    try:
        return composer.document(), composer.problems
    except _StopError as stop:
        return None, [*composer.problems, stop.problem]
    except MarkedYAMLError as error:
        return None, [*composer.problems, syntax_problem(error)]
    except (YAMLError, ValueError):
        # Characters that YAML forbids (ReaderError), and escapes beyond Unicode (chr's ValueError).
        return None, [*composer.problems, character_problem(text, kind)]


class _StopError(Exception):
    """A problem after which the file cannot be read on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


class _Composer:
    """Builds values from parser events; recursion is bounded by the kind's `max_depth`."""

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
        line = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent) and seen:
                fault = "a second YAML document starts here"
                advice = "keep one document in the file"
                raise _stop(PolicyRule.SEVERAL_DOCUMENTS, fault, advice, (), event)
            if isinstance(event, NodeEvent):
                seen = True
                root = self._value(event, ())
                line = _line(event)
        return self._mapping_at_top(root, line)

    def _mapping_at_top(self, root: Any, line: int) -> YamlMapping:
        advice = f"a {self._kind.noun} is a mapping with the keys {self._kind.keys}"
        if root is None:
            fault = "the file is empty"
            raise _StopError(Problem(rule=PolicyRule.EMPTY_FILE, fault=fault, advice=advice))
        if not isinstance(root, YamlMapping):
            fault = f"the file is not a mapping (value {shown(root)})"
            raise _StopError(
                Problem(rule=PolicyRule.NOT_MAPPING, fault=fault, advice=advice, line=line)
            )
        return root

    def _value(self, event: Any, path: Path) -> Any:
        before = self._values
        self._count(1, path, event)
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        if getattr(event, "tag", None) is not None:
            fault, advice = "a YAML tag is not allowed here", "write the value without its '!' tag"
            self._add(PolicyRule.TAG, fault, advice, path, event)
        if isinstance(event, ScalarEvent):
            value: Any = self._plain(event.value) if event.implicit[0] else event.value
        elif len(path) >= self._kind.max_depth:
            fault = f"values nest deeper than {self._kind.max_depth} levels"
            advice = f"a {self._kind.noun} needs fewer"
            raise _stop(PolicyRule.TOO_DEEP, fault, advice, (), event)
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
                fault = f"the key appears twice (first on line {mapping.lines[key]})"
                advice = "keep one of them"
                self._add(PolicyRule.DUPLICATE_KEY, fault, advice, (*path, key), event)
            else:
                mapping[key] = value
                mapping.lines[key] = _line(event)
        return mapping

    def _key(self, event: Event, path: Path) -> str:
        if not isinstance(event, ScalarEvent):
            fault, advice = "a key is not text", "write a name as the key, as in `acme:`"
            raise _stop(PolicyRule.KEY_NOT_TEXT, fault, advice, path, event)
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
        """A value that should not be empty. The problem of an empty one is reported at `place`."""
        value = self._value(event, path)
        if value is None:
            advice = "give it a value or remove it"
            self._add(PolicyRule.NO_VALUE, "has no value", advice, path, place)
        return value

    def _alias(self, event: AliasEvent, path: Path) -> Any:
        known = self._anchors.get(event.anchor)
        if known is None:
            fault = f"the anchor &{event.anchor} is not defined above"
            fault += hint(event.anchor, self._anchors)
            advice = "define the anchor before its alias"
            raise _stop(PolicyRule.UNKNOWN_ANCHOR, fault, advice, path, event)
        value, size = known
        self._count(size, path, event)
        return value

    def _count(self, size: int, path: Path, event: Event) -> None:
        self._values += size
        if self._values > MAX_VALUES:
            fault = f"the file has more than {MAX_VALUES} values with its aliases expanded"
            advice = "use fewer aliases, or split the file"
            raise _stop(PolicyRule.TOO_MANY_VALUES, fault, advice, path, event)

    def _add(self, rule: PolicyRule, fault: str, advice: str, path: Path, event: Event) -> None:
        self.problems.append(_problem(rule, fault, advice, path, event))


def _problem(rule: PolicyRule, fault: str, advice: str, path: Path, event: Event) -> Problem:
    return Problem(rule=rule, fault=fault, advice=advice, path=path, line=_line(event))


def _stop(rule: PolicyRule, fault: str, advice: str, path: Path, event: Event) -> _StopError:
    return _StopError(_problem(rule, fault, advice, path, event))


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1
