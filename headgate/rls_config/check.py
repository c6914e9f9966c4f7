"""One configuration file of envoyproxy/ratelimit: checked as a whole, compiled to a `Level`.

It reads what envoyproxy/ratelimit reads (YAML 1.1 by Go's yaml.v2: unquoted `10` is text where
text is meant, keys without a value count as left out, `<<` merges), and refuses what that
refuses. What it would ignore in silence is refused too: keys in the wrong place, a key twice.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, TypeVar

from headgate.core.contract import DOMAIN
from headgate.core.policy import Per
from headgate.policy.document import FileKind, Path, YamlList, YamlMapping, line_of
from headgate.policy.load import compose_bytes
from headgate.policy.problems import Problem, Rule, hint, shown
from ratelimit.descriptors.tree import Level, Node, Pattern, Rate

FILE_KIND = FileKind("configuration file", "domain and descriptors")
MAX_UINT32 = 2**32 - 1

_ROOT_KEYS = ("domain", "descriptors")
_DESCRIPTOR_KEYS = (
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "quota_mode",
    "share_threshold",
    "detailed_metric",
    "value_to_metric",
)
_RATE_KEYS = ("unit", "requests_per_unit", "unlimited", "name", "replaces")
_REPLACES_KEYS = ("name",)
KNOWN_KEYS = frozenset((*_ROOT_KEYS, *_DESCRIPTOR_KEYS, *_RATE_KEYS, *_REPLACES_KEYS))
_HOMES = {
    **dict.fromkeys(_RATE_KEYS, "it belongs into rate_limit"),
    **dict.fromkeys(_DESCRIPTOR_KEYS, "it belongs into a descriptor"),
    "domain": "it belongs to the top of the file",
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("y", "yes", "true", "on"))
_FALSE = frozenset(("n", "no", "false", "off"))
_WHOLE = re.compile(r"0|[1-9][0-9_]{0,30}")
_UNITS = ", ".join(Per)

T = TypeVar("T")


class DropInRule(StrEnum):
    """What can be wrong beyond YAML itself. Each has a file in `tests/rls_config/bad`."""

    UNKNOWN_KEY = auto()
    MISPLACED_KEY = auto()
    NOT_TEXT = auto()
    NOT_WHOLE = auto()
    NOT_BOOL = auto()
    NOT_LIST = auto()
    NOT_MAPPING = auto()
    MISSING_DOMAIN = auto()
    RESERVED_DOMAIN = auto()
    DUPLICATE_DOMAIN = auto()
    EMPTY_DIRECTORY = auto()
    EMPTY_KEY = auto()
    WILDCARD_IN_KEY = auto()
    DUPLICATE_DESCRIPTOR = auto()
    UNKNOWN_UNIT = auto()
    UNIT_WITH_UNLIMITED = auto()
    REPLACES_WITHOUT_NAME = auto()
    REPLACES_ITSELF = auto()
    SHARE_WITHOUT_WILDCARD = auto()


class Plain(str):
    """An unquoted value, which may be meant as text, number or truth."""

    __slots__ = ()


@dataclass(slots=True)
class CheckedFile:
    """One file. `domain` is empty and `top` not complete where there are problems."""

    domain: str = ""
    top: Level = field(default_factory=Level)
    line: int = 0
    problems: list[Problem] = field(default_factory=list)


def check_file(data: bytes) -> CheckedFile:
    """Checks the bytes of one file."""
    root, problems = compose_bytes(data, FILE_KIND, _plain)
    problems = [problem for problem in problems if problem.rule is not Rule.NO_VALUE]
    if root is None:
        return CheckedFile(problems=problems)
    reader = _Reader(root)
    domain, top = reader.file()
    return CheckedFile(domain, top, line_of(root, ("domain",)), [*problems, *reader.problems])


def _plain(text: str) -> Plain | None:
    return None if text in _NULLS else Plain(text)


class _Reader:
    """Walks one file; every mistake is told, and reading goes on as if it were not there."""

    def __init__(self, root: YamlMapping) -> None:
        self.problems: list[Problem] = []
        self._root = root

    def file(self) -> tuple[str, Level]:
        fields = self._fields(self._root, (), _ROOT_KEYS) or {}
        domain = self._text(fields.get("domain"), ("domain",))
        if not domain and not isinstance(fields.get("domain"), dict | list):
            what, allowed = "is missing or empty", "the domain that Envoy's filter sends"
            self._tell(DropInRule.MISSING_DOMAIN, what, allowed, ("domain",))
        if domain == DOMAIN:
            what = "belongs to Headgate's own filters"
            self._tell(DropInRule.RESERVED_DOMAIN, what, "another domain", ("domain",))
        return domain, self._level(fields.get("descriptors"), ("descriptors",), "")

    def _level(self, value: object, path: Path, parent: str) -> Level:
        exact: dict[tuple[str, str], Node] = {}
        patterns: dict[str, list[tuple[Pattern, Node]]] = {}
        keys: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for item, item_path in self._items(value, path):
            fields = self._fields(item, item_path, _DESCRIPTOR_KEYS)
            if fields is None:
                continue
            key = self._key(fields, item_path)
            text = self._text(fields.get("value"), (*item_path, "value"))
            composite = f"{key}_{text}" if text else key
            node = self._node(fields, item_path, f"{parent}{composite}", text)
            if not key:
                continue
            if composite in lines:
                what = f"the key and value {shown(composite)} stand twice; first on line"
                what += f" {lines[composite]}"
                self._tell(DropInRule.DUPLICATE_DESCRIPTOR, what, "keep one of them", item_path)
                continue
            lines[composite] = line_of(self._root, item_path)
            if not text:
                keys[key] = node
                continue
            exact[key, text] = node
            if "*" in text:
                patterns.setdefault(key, []).append((Pattern.of(text), node))
        return Level(exact, {key: tuple(found) for key, found in patterns.items()}, keys)

    def _key(self, fields: dict[str, Any], path: Path) -> str:
        key = self._text(fields.get("key"), (*path, "key"))
        if not key and not isinstance(fields.get("key"), dict | list):
            what, allowed = "is missing or empty", "the key of a descriptor's entry"
            self._tell(DropInRule.EMPTY_KEY, what, allowed, (*path, "key"))
        if "*" in key:
            what, allowed = "holds a wildcard", "wildcards stand in the value"
            self._tell(DropInRule.WILDCARD_IN_KEY, what, allowed, (*path, "key"))
        return key

    def _node(self, fields: dict[str, Any], path: Path, name: str, value: str) -> Node:
        def flag(key: str) -> bool:
            return self._bool(fields.get(key), (*path, key))

        for ignored in ("detailed_metric", "value_to_metric"):
            flag(ignored)
        shares = flag("share_threshold")
        if shares and "*" not in value:
            what, allowed = "needs a wildcard in the value", "a value with *, as in files/*"
            where = (*path, "share_threshold")
            self._tell(DropInRule.SHARE_WITHOUT_WILDCARD, what, allowed, where)
        modes = (flag("shadow_mode"), flag("quota_mode"))
        rate = self._rate(fields.get("rate_limit"), (*path, "rate_limit"), name, modes)
        below = self._level(fields.get("descriptors"), (*path, "descriptors"), f"{name}.")
        return Node(rate, below, value if shares else None)

    def _rate(self, value: object, path: Path, name: str, modes: tuple[bool, bool]) -> Rate | None:
        fields = None if value is None else self._fields(value, path, _RATE_KEYS)
        if fields is None:
            return None
        own_name = self._text(fields.get("name"), (*path, "name"))
        shadow, quota = modes
        return Rate(
            id=name,
            limit=self._count(fields.get("requests_per_unit"), (*path, "requests_per_unit")),
            per=self._per(fields, path),
            name=own_name,
            replaces=self._replaces(fields.get("replaces"), (*path, "replaces"), own_name),
            shadow=shadow,
            quota=quota,
        )

    def _per(self, fields: dict[str, Any], path: Path) -> Per | None:
        """None for unlimited, or for a unit that has been told of."""
        where = (*path, "unit")
        unit = self._text(fields.get("unit"), where)
        per = Per(unit.lower()) if unit.lower() in set(Per) else None
        if self._bool(fields.get("unlimited"), (*path, "unlimited")):
            if per is not None:
                what, allowed = "cannot stand beside unlimited", "remove one of them"
                self._tell(DropInRule.UNIT_WITH_UNLIMITED, what, allowed, where)
            return None
        if per is None and not isinstance(fields.get("unit"), dict | list):
            known = f"is not a known unit (value {shown(unit)}){hint(unit.lower(), Per)}"
            what = known if unit else "is missing or empty"
            self._tell(DropInRule.UNKNOWN_UNIT, what, f"allowed: {_UNITS}", where)
        return per

    def _replaces(self, value: object, path: Path, own_name: str) -> frozenset[str]:
        names = set()
        for item, item_path in self._items(value, path):
            fields = self._fields(item, item_path, _REPLACES_KEYS)
            if fields is None:
                continue
            where = (*item_path, "name")
            name = self._text(fields.get("name"), where)
            if not name and not isinstance(fields.get("name"), dict | list):
                what, allowed = "is missing or empty", "the name of another rate_limit"
                self._tell(DropInRule.REPLACES_WITHOUT_NAME, what, allowed, where)
            elif name and name == own_name:
                what, allowed = "is this rate_limit's own name", "the name of another rate_limit"
                self._tell(DropInRule.REPLACES_ITSELF, what, allowed, where)
            names.add(name)
        return frozenset(names)

    def _fields(self, value: object, path: Path, allowed: tuple[str, ...]) -> dict[str, Any] | None:
        """The known fields of a mapping, and below its own those of `<<`. None for no mapping."""
        if not isinstance(value, YamlMapping):
            what = f"is not a mapping (value {shown(value)})"
            self._tell(DropInRule.NOT_MAPPING, what, f"allowed: {', '.join(allowed)}", path)
            return None
        fields: dict[str, Any] = {}
        for key, item in value.items():
            if key == "<<":
                for merged in item if isinstance(item, YamlList) else [item]:
                    fields = {**(self._fields(merged, (*path, key), allowed) or {}), **fields}
            elif key in allowed:
                fields[key] = item
            else:
                self._tell_key(key, path, allowed)
        return fields

    def _tell_key(self, key: str, path: Path, allowed: tuple[str, ...]) -> None:
        where = (*path, key)
        if key in _HOMES:
            self._tell(DropInRule.MISPLACED_KEY, "does not belong here", _HOMES[key], where)
            return
        what = f"is not a known key{hint(key, allowed)}"
        self._tell(DropInRule.UNKNOWN_KEY, what, f"allowed: {', '.join(allowed)}", where)

    def _items(self, value: object, path: Path) -> list[tuple[object, Path]]:
        if value is None:
            return []
        if not isinstance(value, YamlList):
            what = f"is not a list (value {shown(value)})"
            self._tell(DropInRule.NOT_LIST, what, "allowed: a list of mappings", path)
            return []
        return [(item, (*path, index)) for index, item in enumerate(value)]

    def _text(self, value: object, path: Path) -> str:
        if isinstance(value, str):
            return str(value)
        return self._wrong(value, "", DropInRule.NOT_TEXT, ("text", "text"), path)

    def _count(self, value: object, path: Path) -> int:
        if isinstance(value, Plain) and _WHOLE.fullmatch(value):
            number = int(value.replace("_", ""))
            if number <= MAX_UINT32:
                return number
        words = ("a whole number", f"plain digits, from 0 to {MAX_UINT32}")
        return self._wrong(value, 0, DropInRule.NOT_WHOLE, words, path)

    def _bool(self, value: object, path: Path) -> bool:
        if isinstance(value, Plain) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        words = ("true or false", "true or false")
        return self._wrong(value, False, DropInRule.NOT_BOOL, words, path)

    def _wrong(
        self, value: object, default: T, rule: DropInRule, words: tuple[str, str], path: Path
    ) -> T:
        """Tells of a value that is there and wrong: what it is not, and what is allowed."""
        if value is not None:
            noun, allowed = words
            what = f"is not {noun} (value {shown(value)})"
            if isinstance(value, str) and not isinstance(value, Plain):
                what += ": remove its quotes"
            self._tell(rule, what, f"allowed: {allowed}", path)
        return default

    def _tell(self, rule: DropInRule, what: str, allowed: str, path: Path) -> None:
        self.problems.append(Problem(rule, what, allowed, path, line_of(self._root, path)))
