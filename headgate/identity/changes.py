"""The change log as a chain of hashes: any edit of a row breaks it. Pure.

The rows hold ids of people and never names. A name can therefore be taken away later, and the
chain stays whole.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

NO_HASH = bytes(32)
"""The hash before the first change."""

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: who, when, from where, what, and the object before and after it.

    `number` counts the changes from 1. `actor` is the id of a person, in hex digits with hyphens.
    `origin` is an address or the name of a program.
    """

    number: int
    at_s: float
    actor: str
    origin: str
    action: str
    object: str
    before: Values | None = None
    after: Values | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The newest change: its number and its hash. It names the whole history before it."""

    number: int = 0
    hash: bytes = NO_HASH


class BrokenChainError(Exception):
    """The log is not what was written. `number` is the first change at fault."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"change {number}: {problem}")
        self.number = number


def hash_of(change: Change, previous: bytes) -> bytes:
    """SHA-256 over the hash of the change before it and all values of this one, as JSON."""
    values = [
        change.number,
        datetime.fromtimestamp(change.at_s, UTC).isoformat(timespec="microseconds"),
        change.actor,
        change.origin,
        change.action,
        change.object,
        change.before,
        change.after,
    ]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(previous + text.encode()).digest()


class Chain:
    """Verifies changes in the order of their numbers, from the first one on.

    `known` is a head that somebody noted earlier, outside the database: whoever rewrites the whole
    log cannot rewrite that.
    """

    def __init__(self, known: Head | None = None) -> None:
        self.head = Head()
        self._known = known

    def add(self, change: Change, written_hash: bytes) -> None:
        """Raises BrokenChainError if the change is not the next one as it was written."""
        expected = self.head.number + 1
        if change.number != expected:
            raise BrokenChainError(expected, f"is missing; the next one is {change.number}")
        if hash_of(change, self.head.hash) != written_hash:
            raise BrokenChainError(change.number, "was edited after it was written")
        self.head = Head(change.number, written_hash)
        if self._known is not None and self._known.number == change.number:
            self._check_known(self._known)

    def end(self, generation: int) -> Head:
        """The head of the whole log, of `generation` changes.

        Raises BrokenChainError if its end was cut off.
        """
        whole = max(generation, 0 if self._known is None else self._known.number)
        if self.head.number != whole:
            raise BrokenChainError(self.head.number + 1, f"is missing, of {whole} changes")
        return self.head

    def _check_known(self, known: Head) -> None:
        if known.hash != self.head.hash:
            raise BrokenChainError(known.number, "is not the one that was noted: all was rewritten")
