"""Tokens that no longer count although they have not expired.

They are never known by their digest: from one ES256 token anybody can make a second one that is
valid too, without the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.core.issuers import Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The tokens that are revoked.

    All tokens of `users` are, by names such as `okta:00u1`. `tokens` are those of an issuer's alias
    and a `jti`. Of the users in `issued_before_s`, only tokens that were issued at this time or
    later count.
    """

    users: frozenset[str] = frozenset()
    tokens: frozenset[tuple[str, str]] = frozenset()
    issued_before_s: Mapping[str, float] = field(default_factory=dict)

    def covers(self, person: Person) -> bool:
        """Whether the person's token is revoked. One that does not say when it was issued, is."""
        return (
            person.user in self.users
            or (person.issuer, person.token_id) in self.tokens
            or person.issued_s < self.issued_before_s.get(person.user, -1.0)
        )


NOTHING_REVOKED = Revocations()
