"""The compiled configuration of envoyproxy/ratelimit, and which limit a descriptor meets. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from headgate.core.policy import Per

Entry: TypeAlias = tuple[str, str]
"""Key and value of one entry of a descriptor."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A `rate_limit` with the modes of its descriptor. `per` is None exactly for unlimited.

    `id` names it in metrics: the keys and values of the configuration that lead to it.
    """

    id: str
    limit: int
    per: Per | None
    name: str = ""
    replaces: frozenset[str] = frozenset()
    shadow: bool = False
    quota: bool = False

    @property
    def enforced(self) -> bool:
        """Whether it refuses; in shadow and quota mode it only counts."""
        return not (self.shadow or self.quota)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A value with wildcards, split at each `*`, which stands for any text or none."""

    text: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Pattern":
        return cls(text, tuple(text.split("*")))

    def matches(self, value: str) -> bool:
        """Takes time in proportion to the value, however many wildcards there are."""
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
class Level:
    """The descriptors of one list: by key and value as written, by key and pattern in order, by
    key alone. Those with a pattern stand in `exact` too.
    """

    exact: Mapping[Entry, "Node"] = field(default_factory=dict)
    patterns: Mapping[str, tuple[tuple[Pattern, "Node"], ...]] = field(default_factory=dict)
    keys: Mapping[str, "Node"] = field(default_factory=dict)

    def find(self, entry: Entry) -> "Node | None":
        """The most specific one: the value itself, else the first pattern, else the key."""
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
    """A descriptor of the configuration. `shared` is its pattern where all values share a limit."""

    rate: Rate | None = None
    below: Level = field(default_factory=Level)
    shared: str | None = None


Domains: TypeAlias = Mapping[str, Level]
"""The configuration in force: the descriptors of each domain."""


@dataclass(frozen=True, slots=True)
class Met:
    """The limit that a descriptor meets, and the entries that its counter is kept apart by."""

    rate: Rate
    entries: tuple[Entry, ...]


def meet(top: Level, entries: tuple[Entry, ...]) -> Met | None:
    """The limit at the end of the chain that all entries match, if it has one.

    At each step only the most specific descriptor is followed: where the chain breaks off below
    it, a less specific one is not tried.
    """
    level, rate = top, None
    counted: list[Entry] = []
    for entry in entries:
        node = level.find(entry)
        if node is None:
            return None
        counted.append(entry if node.shared is None else (entry[0], node.shared))
        level, rate = node.below, node.rate
    return None if rate is None else Met(rate, tuple(counted))
