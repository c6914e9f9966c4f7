"""Tokens that no longer count although they have not expired.

They are never known by their digest: from one ES256 token anybody can make a second one that is
valid too, without the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.core.issuers import Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The people and tokens that are revoked, known by their issuer's alias and their id.

    `people` are blocked until they are taken out. `tokens` are those of a `jti`. Of the people in
    `issued_before_s`, only tokens that were issued at this time or later count.
    """

    people: frozenset[tuple[str, str]] = frozenset()
    tokens: frozenset[tuple[str, str]] = frozenset()
    issued_before_s: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def covers(self, person: Person) -> bool:
        """Whether the person's token is revoked. One that does not say when it was issued, is."""
        subject = (person.issuer, person.subject)
        return (
            subject in self.people
            or (person.issuer, person.token_id) in self.tokens
            or person.issued_s < self.issued_before_s.get(subject, -1.0)
        )


NOTHING_REVOKED = Revocations()
