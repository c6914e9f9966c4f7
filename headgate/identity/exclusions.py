"""Blocked users and revoked tokens in this process' memory. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from headgate.identity.tokens.revocations import NOTHING_REVOKED, Revocations


class BlockRow(NamedTuple):
    """A user of a tenant, who is blocked or no longer."""

    tenant: str
    user: str
    is_blocked: bool


class RevocationRow(NamedTuple):
    """Tokens of an issuer that no longer count, until it is lifted.

    They are those of `user`, or the one with the id `token_id`; the other one is empty. With
    `before_s` (seconds since the Unix epoch), the user's tokens that were issued earlier.
    """

    id: int
    issuer: str
    user: str
    token_id: str
    before_s: float | None
    is_lifted: bool


class Exclusions:
    """The users and tokens that count no more. There are few, so all are held as they came."""

    def __init__(self) -> None:
        self._blocked: set[tuple[str, str]] = set()
        self._rows: dict[int, RevocationRow] = {}
        self.revocations: Revocations = NOTHING_REVOKED

    def is_blocked(self, tenant: str, user: str) -> bool:
        """Whether the user is blocked in the tenant."""
        return bool(self._blocked) and (tenant, user) in self._blocked

    def take_block(self, row: BlockRow) -> None:
        """Puts a user in, or takes them out."""
        change = self._blocked.add if row.is_blocked else self._blocked.discard
        change((row.tenant, row.user))

    def take_revocation(self, row: RevocationRow) -> None:
        """Puts a revocation in, or takes it out."""
        if row.is_lifted:
            self._rows.pop(row.id, None)
        else:
            self._rows[row.id] = row
        self.revocations = _joined(list(self._rows.values()))

    def blocks(self) -> Iterator[BlockRow]:
        """The users who are blocked now."""
        return (BlockRow(tenant, user, True) for tenant, user in list(self._blocked))

    def revoked(self) -> list[RevocationRow]:
        """The revocations that hold now."""
        return list(self._rows.values())


def _joined(rows: list[RevocationRow]) -> Revocations:
    """One value for all rows; of several moments of a user, the latest counts."""
    if not rows:
        return NOTHING_REVOKED
    before_s: dict[str, float] = {}
    for row in rows:
        if row.before_s is not None:
            before_s[row.user] = max(row.before_s, before_s.get(row.user, row.before_s))
    return Revocations(
        users=frozenset(row.user for row in rows if row.user and row.before_s is None),
        tokens=frozenset((row.issuer, row.token_id) for row in rows if row.token_id),
        issued_before_s=before_s,
    )
