"""Reads the lock files: names, versions, markers and hashes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SERVE_LOCK = ROOT / "requirements.serve.lock"
ONEBOX_LOCK = ROOT / "requirements.onebox.lock"
DEVELOPMENT_LOCK = ROOT / "requirements.lock"

_HASH = "--hash=sha256:"


@dataclass(frozen=True, slots=True)
class Locked:
    """One locked package. `sha256` holds the digest of each file that may be installed for it.

    `marker` names the environments that need it; None stands for all of them.
    """

    name: str
    version: str
    marker: Marker | None
    sha256: frozenset[str]


def read_lock(path: Path) -> list[Locked]:
    """The packages of a lock, in its order. Raises ValueError for a line it cannot read."""
    return [_locked(entry) for entry in _entries(path.read_text(encoding="utf-8"))]


def _entries(text: str) -> Iterator[str]:
    """Each entry on one line: a trailing backslash continues it."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            yield line


def _locked(entry: str) -> Locked:
    words, *hashes = entry.split(_HASH)
    requirement = Requirement(words)
    [pin] = requirement.specifier
    if pin.operator != "==" or not hashes:
        raise ValueError(f"not a pinned requirement with hashes: {entry[:80]}")
    return Locked(
        name=requirement.name,
        version=pin.version,
        marker=requirement.marker,
        sha256=frozenset(digest.strip() for digest in hashes),
    )
