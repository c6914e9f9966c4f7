"""Reads single values of a configuration file, and collects a problem for each wrong one.

Values are read as Go's yaml.v2 reads them (YAML 1.1). An unquoted `10` is text where text is
expected. A key without a value counts as absent, and `<<` merges mappings.
"""

import re
from typing import Any, TypeVar

from headgate.policy.document import Path, YamlList, YamlMapping, line_of
from headgate.policy.problems import Problem, hint, shown
from headgate.rls_config.rules import RlsConfigRule

MAX_UINT32 = 2**32 - 1

ROOT_KEYS = ("name", "domain", "descriptors")
DESCRIPTOR_KEYS = (
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "quota_mode",
    "share_threshold",
    "detailed_metric",
    "value_to_metric",
    "metadata",
)
RATE_KEYS = ("unit", "requests_per_unit", "unlimited", "name", "replaces")
REPLACES_KEYS = ("name",)
KNOWN_KEYS = frozenset((*ROOT_KEYS, *DESCRIPTOR_KEYS, *RATE_KEYS, *REPLACES_KEYS))
_HOMES = {
    **dict.fromkeys(RATE_KEYS, "move it into rate_limit"),
    **dict.fromkeys(DESCRIPTOR_KEYS, "move it into a descriptor"),
    "domain": "move it to the top of the file",
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
TRUE = frozenset(("y", "yes", "true", "on"))
FALSE = frozenset(("n", "no", "false", "off"))
_WHOLE = re.compile(r"0|[1-9][0-9_]{0,30}")

T = TypeVar("T")


class Plain(str):
    """An unquoted value, which may be meant as text, as a number or as true or false."""

    __slots__ = ()


def plain(text: str) -> Plain | None:
    """An unquoted value as the reader expects it; None for YAML's null."""
    return None if text in _NULLS else Plain(text)


class ValueReader:
    """Reads the values of one file. A wrong value is reported and then counts as absent."""

    def __init__(self, root: YamlMapping) -> None:
        self.problems: list[Problem] = []
        self._root = root

    def fields(self, value: object, path: Path, allowed: tuple[str, ...]) -> dict[str, Any] | None:
        """The known fields of a mapping. Fields of `<<` rank below its own. None if no mapping."""
        if not isinstance(value, YamlMapping):
            fault = f"is not a mapping (value {shown(value)})"
            keys = "key" if len(allowed) == 1 else "keys"
            advice = f"allowed: a mapping with the {keys} {', '.join(allowed)}"
            self.report(RlsConfigRule.NOT_MAPPING, fault, advice, path)
            return None
        fields: dict[str, Any] = {}
        for key, item in value.items():
            if key == "<<":
                for merged in item if isinstance(item, YamlList) else [item]:
                    fields = {**(self.fields(merged, (*path, key), allowed) or {}), **fields}
            elif key in allowed:
                fields[key] = item
            else:
                self._report_key(key, path, allowed)
        return fields

    def _report_key(self, key: str, path: Path, allowed: tuple[str, ...]) -> None:
        where = (*path, key)
        if key in _HOMES:
            rule = RlsConfigRule.MISPLACED_KEY
            self.report(rule, "does not belong here", _HOMES[key], where)
            return
        fault = f"is not a known key{hint(key, allowed)}"
        self.report(RlsConfigRule.UNKNOWN_KEY, fault, f"allowed: {', '.join(allowed)}", where)

    def items(self, value: object, path: Path) -> list[tuple[object, Path]]:
        """The items of a list, each with its path. Empty if the value is absent."""
        if value is None:
            return []
        if not isinstance(value, YamlList):
            fault = f"is not a list (value {shown(value)})"
            self.report(RlsConfigRule.NOT_LIST, fault, "allowed: a list of mappings", path)
            return []
        return [(item, (*path, index)) for index, item in enumerate(value)]

    def mapping(self, value: object, path: Path) -> YamlMapping | None:
        """A mapping with any keys. None if the value is absent."""
        if value is None or isinstance(value, YamlMapping):
            return value
        fault = f"is not a mapping (value {shown(value)})"
        self.report(RlsConfigRule.NOT_MAPPING, fault, "allowed: a mapping with any keys", path)
        return None

    def text(self, value: object, path: Path) -> str:
        """A text, quoted or not. Empty if the value is absent."""
        if isinstance(value, str):
            return str(value)
        return self._wrong(value, "", RlsConfigRule.NOT_TEXT, ("text", "text"), path)

    def count(self, value: object, path: Path) -> int:
        """An unquoted whole number that fits into a uint32. 0 if the value is absent."""
        if isinstance(value, Plain) and _WHOLE.fullmatch(value):
            number = int(value.replace("_", ""))
            if number <= MAX_UINT32:
                return number
        words = ("a whole number", f"plain digits, from 0 to {MAX_UINT32}")
        return self._wrong(value, 0, RlsConfigRule.NOT_WHOLE, words, path)

    def flag(self, value: object, path: Path) -> bool:
        """An unquoted true or false in any of YAML 1.1's words. False if the value is absent."""
        if isinstance(value, Plain) and value.lower() in TRUE | FALSE:
            return value.lower() in TRUE
        words = ("true or false", "true or false")
        return self._wrong(value, False, RlsConfigRule.NOT_BOOL, words, path)

    def _wrong(
        self, value: object, default: T, rule: RlsConfigRule, words: tuple[str, str], path: Path
    ) -> T:
        """Reports a value that is present. `words` are the expected noun and the allowed values."""
        if value is not None:
            noun, allowed = words
            fault = f"is not {noun} (value {shown(value)})"
            if isinstance(value, str) and not isinstance(value, Plain):
                fault += ": remove its quotes"
            self.report(rule, fault, f"allowed: {allowed}", path)
        return default

    def line(self, path: Path) -> int:
        """The line of the value at `path`, counted from 1."""
        return line_of(self._root, path)

    def report(self, rule: RlsConfigRule, fault: str, advice: str, path: Path) -> None:
        """Adds a problem at `path`."""
        line = self.line(path)
        self.problems.append(Problem(rule=rule, fault=fault, advice=advice, path=path, line=line))
