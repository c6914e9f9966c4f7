"""The keys and blocked users of the database in this process' memory. A look-up asks nobody."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from headgate.core.clock import Clock
from headgate.core.key_ring import WHOLE_TENANT, KeyScope, KeysUnavailableError
from headgate.core.policy import Caller
from headgate.identity.changes import Head
from headgate.identity.exclusions import BlockRow, Exclusions, RevocationRow
from headgate.identity.limits import KeyLimit, compiled, written
from headgate.identity.tokens.revocations import Revocations

NEVER_S = math.inf


class SecretRow(NamedTuple):
    """One secret with its key, as the database and the snapshot give it.

    `expires_s` is the earlier end of the two, in seconds since the Unix epoch.
    """

    digest: bytes
    key: str
    tenant: str
    user: str
    expires_s: float
    is_revoked: bool
    models: tuple[str, ...] | None
    limits: tuple[KeyLimit, ...]


Row: TypeAlias = SecretRow | BlockRow | RevocationRow


class _Held:
    """A live secret: its caller, and its end. A class without a dict: there are many of them."""

    __slots__ = ("caller", "expires_s")

    def __init__(self, caller: Caller, expires_s: float) -> None:
        self.caller = caller
        self.expires_s = expires_s


class KeyContent:
    """The live secrets by their digest, the scope of each key by its id, and the exclusions."""

    def __init__(self) -> None:
        self.exclusions = Exclusions()
        self.held: dict[bytes, _Held] = {}
        self.scopes: dict[str, KeyScope] = {}
        self._tenants: dict[str, str] = {}
        self._scopes: dict[KeyScope, KeyScope] = {}

    def take(self, row: Row, now_s: float) -> None:
        """Puts a row in, or takes it out if it no longer holds."""
        match row:
            case BlockRow():
                self.exclusions.take_block(row)
            case RevocationRow():
                self.exclusions.take_revocation(row)
            case SecretRow():
                self._take_secret(row, now_s)

    def _take_secret(self, row: SecretRow, now_s: float) -> None:
        """The scope of a key stays: requests that were let in before its end still ask for it."""
        self.scopes[row.key] = self._scope(row)
        if row.is_revoked or now_s >= row.expires_s:
            self.held.pop(row.digest, None)
            return
        tenant = self._tenants.setdefault(row.tenant, row.tenant)
        expires_s = NEVER_S if row.expires_s == NEVER_S else row.expires_s  # one object for all
        self.held[row.digest] = _Held(Caller(tenant, row.user, row.key), expires_s)

    def _scope(self, row: SecretRow) -> KeyScope:
        if row.models is None and not row.limits:
            return WHOLE_TENANT
        models = None if row.models is None else frozenset(row.models)
        scope = KeyScope(models, tuple(compiled(limit) for limit in row.limits))
        return self._scopes.setdefault(scope, scope)


class MemoryRing:
    """The keys as of the last good poll. Once that is `stale_s` old, none is taken any more.

    `head` is the newest change that is in it; None until it was first filled.
    """

    def __init__(self, clock: Clock, stale_s: float) -> None:
        self._clock = clock
        self._stale_s = stale_s
        self._content = KeyContent()
        self._used: dict[str, float] = {}
        self._good_at_s = 0.0
        self.head: Head | None = None

    def __len__(self) -> int:
        """How many secrets are held."""
        return len(self._content.held)

    @property
    def good_at_s(self) -> float:
        """When the ring was last known to be current, in seconds since the Unix epoch."""
        return self._good_at_s

    def find(self, digest: bytes) -> Caller | None:
        """The caller of a live key; notes that it was used. Raises KeysUnavailableError."""
        now_s = self._clock.now_s()
        if now_s - self._good_at_s > self._stale_s:
            raise KeysUnavailableError("the keys of the database are not known")
        held = self._content.held.get(digest)
        if held is None or now_s >= held.expires_s:
            return None
        self._used[held.caller.key] = now_s
        return held.caller

    def scope_of(self, key: str) -> KeyScope | None:
        """The scope of a key by its id, also of one that has ended."""
        return self._content.scopes.get(key)

    def is_blocked(self, tenant: str, user: str) -> bool:
        """Whether the user is blocked, as of the last good poll, however old that is."""
        return self._content.exclusions.is_blocked(tenant, user)

    def revocations(self) -> Revocations:
        """The revoked tokens, as of the last good poll."""
        return self._content.exclusions.revocations

    def replace(self, content: KeyContent, head: Head) -> None:
        """Takes these keys in place of all others."""
        self._content, self.head = content, head

    def update(self, rows: Iterable[Row], head: Head) -> None:
        """Takes what has changed: users, revocations, and keys, each with all of its secrets."""
        now_s = self._clock.now_s()
        for row in rows:
            self._content.take(row, now_s)
        self.head = head

    def mark_good(self, at_s: float) -> None:
        """The ring was current at this time."""
        self._good_at_s = max(self._good_at_s, at_s)

    def rows(self) -> Iterator[SecretRow]:
        """Everything that is held now, for a snapshot. Another thread may go through it."""
        scopes = self._content.scopes
        return (
            _row(digest, held, scopes[held.caller.key])
            for digest, held in list(self._content.held.items())
        )

    @property
    def exclusions(self) -> Exclusions:
        """The blocked users and revoked tokens, for a snapshot."""
        return self._content.exclusions

    def take_used(self) -> dict[str, float]:
        """When each key was last used, of those used since the last call."""
        used, self._used = self._used, {}
        return used


def _row(digest: bytes, held: _Held, scope: KeyScope) -> SecretRow:
    """The row that `KeyContent.take` would have taken."""
    caller = held.caller
    return SecretRow(
        digest=digest,
        key=caller.key,
        tenant=caller.tenant,
        user=caller.user,
        expires_s=held.expires_s,
        is_revoked=False,
        models=None if scope.models is None else tuple(sorted(scope.models)),
        limits=tuple(map(written, scope.limits)),
    )
