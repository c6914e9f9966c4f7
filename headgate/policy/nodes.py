"""Looks into a plain document whose values may have any shape. Wrong shapes are skipped."""

from collections.abc import Iterator

from headgate.policy.document import YamlList, YamlMapping


def keys(node: YamlMapping, key: str) -> dict[str, None]:
    """The keys of the mapping below `key`, in their order."""
    return dict.fromkeys(name for name, _ in members(node, key))


def members(node: YamlMapping, key: str) -> Iterator[tuple[str, object]]:
    """The members of the mapping below `key`."""
    inner = node.get(key)
    return iter(inner.items() if isinstance(inner, YamlMapping) else ())


def mappings(node: YamlMapping, key: str) -> Iterator[tuple[str | int, YamlMapping]]:
    """The mappings below `key`, by their names or indices."""
    inner = node.get(key)
    entries: list[tuple[str | int, object]] = []
    if isinstance(inner, YamlMapping):
        entries = list(inner.items())
    elif isinstance(inner, YamlList):
        entries = list(enumerate(inner))
    return ((at, entry) for at, entry in entries if isinstance(entry, YamlMapping))


def texts(node: YamlMapping, key: str) -> Iterator[tuple[int, str]]:
    """The texts of the list below `key`, by their indices."""
    inner = node.get(key)
    items = inner if isinstance(inner, YamlList) else []
    return ((at, item) for at, item in enumerate(items) if isinstance(item, str))
