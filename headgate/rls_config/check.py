"""Checks one configuration file of envoyproxy/ratelimit and compiles it to a `DescriptorLevel`.

The check reads what envoyproxy/ratelimit reads and refuses what envoyproxy/ratelimit refuses. It
also refuses what envoyproxy/ratelimit silently ignores: misplaced keys and duplicate keys.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from headgate.core.contract import DOMAIN
from headgate.core.policy import Per
from headgate.policy.document import FileKind, Path, YamlMapping
from headgate.policy.load import compose_bytes
from headgate.policy.problems import PolicyRule, Problem, hint, shown
from headgate.rls_config.manifest import manifest_problem
from headgate.rls_config.metadata import json_object
from headgate.rls_config.reader import (
    DESCRIPTOR_KEYS,
    RATE_KEYS,
    REPLACES_KEYS,
    ROOT_KEYS,
    ValueReader,
    plain,
)
from headgate.rls_config.rules import RlsConfigRule
from ratelimit.descriptors.tree import DescriptorLevel, Node, Pattern, Rate

FILE_KIND = FileKind("configuration file", "domain and descriptors")

_UNITS = ", ".join(Per)


@dataclass(slots=True)
class CheckedFile:
    """One file. With problems, `domain` is empty and `top` is incomplete."""

    domain: str = ""
    top: DescriptorLevel = field(default_factory=DescriptorLevel)
    line: int = 0
    problems: list[Problem] = field(default_factory=list)


def check_file(data: bytes) -> CheckedFile:
    """Checks the bytes of one file. A Kubernetes manifest is reported as one problem."""
    checked = _check(data)
    manifest = manifest_problem(data) if checked.problems else None
    return checked if manifest is None else CheckedFile(problems=[manifest])


def _check(data: bytes) -> CheckedFile:
    root, problems = compose_bytes(data, FILE_KIND, plain)
    problems = [problem for problem in problems if problem.rule is not PolicyRule.NO_VALUE]
    if root is None:
        return CheckedFile(problems=problems)
    compiler = _Compiler(root)
    domain, top = compiler.file()
    line = compiler.reader.line(("domain",))
    return CheckedFile(domain, top, line, [*problems, *compiler.reader.problems])


class _Compiler:
    """Walks one file. It reports every mistake and reads on as if the mistake were not there."""

    def __init__(self, root: YamlMapping) -> None:
        self.reader = ValueReader(root)
        self._root = root

    def file(self) -> tuple[str, DescriptorLevel]:
        fields = self.reader.fields(self._root, (), ROOT_KEYS) or {}
        self.reader.text(fields.get("name"), ("name",))
        path = ("domain",)
        advice = "write the domain that Envoy's filter sends"
        domain = self._required(fields, path, RlsConfigRule.MISSING_DOMAIN, advice)
        if domain == DOMAIN:
            fault = "is reserved for Headgate's own filters"
            self.reader.report(RlsConfigRule.RESERVED_DOMAIN, fault, "use another domain", path)
        return domain, self._level(fields.get("descriptors"), ("descriptors",), "")

    def _level(self, value: object, path: Path, parent: str) -> DescriptorLevel:
        exact: dict[tuple[str, str], Node] = {}
        patterns: dict[str, list[tuple[Pattern, Node]]] = {}
        keys: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for item, item_path in self.reader.items(value, path):
            fields = self.reader.fields(item, item_path, DESCRIPTOR_KEYS)
            if fields is None:
                continue
            key = self._key(fields, item_path)
            text = self.reader.text(fields.get("value"), (*item_path, "value"))
            composite = f"{key}_{text}" if text else key
            node = self._node(fields, item_path, f"{parent}{composite}", text)
            if not key or self._is_duplicate(composite, item_path, lines):
                continue
            if not text:
                keys[key] = node
                continue
            exact[key, text] = node
            if "*" in text:
                patterns.setdefault(key, []).append((Pattern.of(text), node))
        return DescriptorLevel(exact, {key: tuple(nodes) for key, nodes in patterns.items()}, keys)

    def _is_duplicate(self, composite: str, path: Path, lines: dict[str, int]) -> bool:
        """Whether the key and value are in `lines` already. Otherwise adds their line."""
        if composite not in lines:
            lines[composite] = self.reader.line(path)
            return False
        fault = f"repeats the key and value {shown(composite)} of line {lines[composite]}"
        self.reader.report(RlsConfigRule.DUPLICATE_DESCRIPTOR, fault, "keep one of them", path)
        return True

    def _key(self, fields: dict[str, Any], path: Path) -> str:
        path = (*path, "key")
        advice = "write the key of a descriptor's entry"
        key = self._required(fields, path, RlsConfigRule.EMPTY_KEY, advice)
        if "*" in key:
            advice = "use wildcards in the value only"
            self.reader.report(RlsConfigRule.WILDCARD_IN_KEY, "contains a wildcard", advice, path)
        return key

    def _node(self, fields: dict[str, Any], path: Path, name: str, value: str) -> Node:
        def flag(key: str) -> bool:
            return self.reader.flag(fields.get(key), (*path, key))

        for ignored in ("detailed_metric", "value_to_metric"):
            flag(ignored)
        shares = flag("share_threshold")
        if shares and "*" not in value:
            fault, advice = "needs a wildcard in the value", "write a value with *, as in files/*"
            where = (*path, "share_threshold")
            self.reader.report(RlsConfigRule.SHARE_WITHOUT_WILDCARD, fault, advice, where)
        modes = (flag("shadow_mode"), flag("quota_mode"))
        rate = self._rate(fields.get("rate_limit"), (*path, "rate_limit"), name, modes)
        metadata = self.reader.mapping(fields.get("metadata"), (*path, "metadata"))
        if rate is not None and metadata:
            rate = replace(rate, metadata=json_object(metadata))
        below = self._level(fields.get("descriptors"), (*path, "descriptors"), f"{name}.")
        return Node(rate, below, value if shares else None)

    def _rate(self, value: object, path: Path, name: str, modes: tuple[bool, bool]) -> Rate | None:
        fields = None if value is None else self.reader.fields(value, path, RATE_KEYS)
        if fields is None:
            return None
        own_name = self.reader.text(fields.get("name"), (*path, "name"))
        number = fields.get("requests_per_unit")
        shadow, quota = modes
        return Rate(
            id=name,
            limit=self.reader.count(number, (*path, "requests_per_unit")),
            per=self._per(fields, path),
            name=own_name,
            replaces=self._replaces(fields.get("replaces"), (*path, "replaces"), own_name),
            shadow=shadow,
            quota=quota,
        )

    def _per(self, fields: dict[str, Any], path: Path) -> Per | None:
        """The unit. None if the rate is unlimited, or if its unit has been reported as wrong."""
        where = (*path, "unit")
        unit = self.reader.text(fields.get("unit"), where)
        per = Per(unit.lower()) if unit.lower() in set(Per) else None
        if self.reader.flag(fields.get("unlimited"), (*path, "unlimited")):
            if per is not None:
                fault = "cannot be combined with unlimited"
                rule = RlsConfigRule.UNIT_WITH_UNLIMITED
                self.reader.report(rule, fault, "remove one of them", where)
            return None
        if per is None and not isinstance(fields.get("unit"), dict | list):
            unknown = f"is not a known unit (value {shown(unit)}){hint(unit.lower(), Per)}"
            fault = unknown if unit else "is missing or empty"
            self.reader.report(RlsConfigRule.UNKNOWN_UNIT, fault, f"allowed: {_UNITS}", where)
        return per

    def _replaces(self, value: object, path: Path, own_name: str) -> frozenset[str]:
        names = set()
        for item, item_path in self.reader.items(value, path):
            fields = self.reader.fields(item, item_path, REPLACES_KEYS)
            if fields is None:
                continue
            where = (*item_path, "name")
            advice = "write the name of another rate_limit"
            name = self._required(fields, where, RlsConfigRule.REPLACES_WITHOUT_NAME, advice)
            if name and name == own_name:
                fault = "is this rate_limit's own name"
                self.reader.report(RlsConfigRule.REPLACES_ITSELF, fault, advice, where)
            names.add(name)
        return frozenset(names)

    def _required(
        self, fields: dict[str, Any], path: Path, rule: RlsConfigRule, advice: str
    ) -> str:
        """The text at the last key of `path`, which must not be empty."""
        value = fields.get(str(path[-1]))
        text = self.reader.text(value, path)
        if not text and not isinstance(value, dict | list):
            self.reader.report(rule, "is missing or empty", advice, path)
        return text
