"""One operation of the management API, as a row of its table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from headgate.core.issuers import Role
from headgate.management.calls import Answer, Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation.

    `least` is the role that it needs in the tenant of its path, or of the key in its path. Without
    both it needs the role in any tenant. With `own`, the user of the key may use it too. With
    `is_list` the answer is a page of `output`; `is_numbered` says that its cursor is a number.
    """

    method: str
    path: str
    summary: str
    handle: Callable[[Call[Any]], Awaitable[Answer]]
    least: Role
    output: type
    input: type | None = None
    own: bool = False
    is_list: bool = False
    is_numbered: bool = False
    status: int = 200
    query: tuple[str, ...] = field(default=())
