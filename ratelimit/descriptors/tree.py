"""The compiled configuration of envoyproxy/ratelimit: finds the limit of a descriptor. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headgate.core.policy import Per

DescriptorEntry: TypeAlias = tuple[str, str]
"""Key and value of one entry of a descriptor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A `rate_limit` with the modes of its descriptor. `per` is None exactly for unlimited.

    `id` is its name in metrics: the keys and values that lead to it in the configuration.
    `metadata` is for the filters behind Envoy's rate limit: JSON values by name.
    """

    id: str
    limit: int
    per: Per | None
    name: str = ""
    replaces: frozenset[str] = frozenset()
    shadow: bool = False
    quota: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A value with wildcards, split at each `*`, which matches any text, also the empty one."""

    text: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Pattern":
        return cls(text, tuple(text.split("*")))

    def matches(self, value: str) -> bool:
        """Whether the value matches. The time grows with the value, not with the wildcards."""
        first, *middle, last = self.parts
        if len(value) < len(first) + len(last):
            return False
        if not (value.startswith(first) and value.endswith(last)):
            return False
        at, end = len(first), len(value) - len(last)
        for part in middle:
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


@dataclass(frozen=True, slots=True)
class DescriptorLevel:
    """The descriptors of one list.

    `exact` holds them by key and value as written, and `keys` by key alone. `patterns` holds those
    with wildcards by key, in the order of the file; these are in `exact` too.
    """

    exact: Mapping[DescriptorEntry, "Node"] = field(default_factory=dict)
    patterns: Mapping[str, tuple[tuple[Pattern, "Node"], ...]] = field(default_factory=dict)
    keys: Mapping[str, "Node"] = field(default_factory=dict)

    def find(self, entry: DescriptorEntry) -> "Node | None":
        """The most specific node: by the value itself, else the first pattern, else the key."""
        node = self.exact.get(entry)
        if node is not None:
            return node
        key, value = entry
        for pattern, of_pattern in self.patterns.get(key, ()):
            if pattern.matches(value):
                return of_pattern
        return self.keys.get(key)


@dataclass(frozen=True, slots=True)
class Node:
    """A descriptor of the configuration. `shared` is its pattern if all values share a limit."""

    rate: Rate | None = None
    below: DescriptorLevel = field(default_factory=DescriptorLevel)
    shared: str | None = None


Domains: TypeAlias = Mapping[str, DescriptorLevel]
"""The configuration in force: the descriptors of each domain."""


@dataclass(frozen=True, slots=True)
class Met:
    """The limit that a descriptor meets, and the entries that its counter is named by."""

    rate: Rate
    entries: tuple[DescriptorEntry, ...]


def meet(top: DescriptorLevel, entries: tuple[DescriptorEntry, ...]) -> Met | None:
    """The limit at the end of the chain that matches all entries; None if there is none.

    Each step follows only the most specific descriptor. If the chain ends below it, a less
    specific descriptor is not tried.
    """
    level, rate = top, None
    counted: list[DescriptorEntry] = []
    for entry in entries:
        node = level.find(entry)
        if node is None:
            return None
        counted.append(entry if node.shared is None else (entry[0], node.shared))
        level, rate = node.below, node.rate
    return None if rate is None else Met(rate, tuple(counted))
