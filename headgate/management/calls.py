"""One call of the management API as its handler sees it, and the handler's answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from extproc.cache.answers import AnswerStore
from headgate.adapters.store import AdapterStore
from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection
from headgate.identity.change_log import Actor
from headgate.identity.keys import Key
from headgate.identity.store import KeyStore
from headgate.identity.users import UserStore
from headgate.management.problems import ProblemError
from headgate.management.rights import Manager

PAGE = 100
MAX_PAGE = 1000
MAX_CURSOR = 2048
LARGEST = 2**53 - 1
"""The largest whole number that JSON carries exactly."""
KEY_ID = re.compile(r"~[0-9a-f]{16}")
IDEMPOTENCY_KEY = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")

B = TypeVar("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Everything that the handlers work with. `policy` returns the one in force."""

    store: KeyStore
    users: UserStore
    connect: Callable[[], AbstractAsyncContextManager[Connection]]
    policy: Callable[[], CompiledPolicy]
    clock: Clock
    answers: AnswerStore | None = None
    """Those that the answer cache keeps."""

    @property
    def adapters(self) -> AdapterStore:
        """The registry of adapters."""
        return AdapterStore(self.connect, self.clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[B]):
    """A call whose manager has the right to make it.

    `key` is the key of the path, and `tenant` the tenant of the path or of the key; empty for
    neither. `path` holds the other parts of the path. `headers` have their names in lower case.
    """

    desk: Desk
    policy: CompiledPolicy
    manager: Manager
    by: Actor
    body: B
    tenant: str = ""
    key: Key | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def the_key(self) -> Key:
        """The key of the path, which every path with a key has."""
        assert self.key is not None  # noqa: S101
        return self.key

    @property
    def limit(self) -> int:
        """How many rows the page may have. Raises ProblemError."""
        return whole_number(self.query, "limit", PAGE, MAX_PAGE)

    @property
    def after(self) -> str:
        """The row after which the page begins. Raises ProblemError."""
        cursor = self.query.get("after", "")
        if len(cursor) > MAX_CURSOR or not cursor.isprintable() or not cursor.isascii():
            raise ProblemError(400, "must be the `next` of a page before", "after")
        return cursor

    @property
    def seen(self) -> int | None:
        """The version in If-Match; None without one. Raises ProblemError."""
        tag = self.headers.get("if-match", "*")
        if tag == "*":
            return None
        number = tag.strip('"')
        if tag != f'"{number}"' or not _is_number(number):
            raise ProblemError(412, "If-Match names no version of this key; read the key again")
        return int(number)


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and the version of the key in it. `status` None is the endpoint's own."""

    body: Any
    version: int | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list. `next` is the cursor of the page after it, None at the end."""

    data: Sequence[Any]
    next: str | None = None


def whole_number(query: Mapping[str, str], name: str, default: int, largest: int) -> int:
    """A number from 1 to `largest` in a query. Raises ProblemError."""
    text = query.get(name, str(default))
    if not _is_number(text) or not 1 <= int(text) <= largest:
        raise ProblemError(400, f"must be a whole number from 1 to {largest}", name)
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
