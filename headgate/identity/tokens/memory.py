"""Verified tokens, remembered for a moment by their digest."""

from collections import OrderedDict

from headgate.core.issuers import Person

REMEMBERED_S = 60.0
"""The longest time between two verifications of a token."""
MAX_REMEMBERED = 20_000


class TokenMemory:
    """The people of tokens that were verified. Refusals are not remembered.

    It holds at most `most` tokens, and forgets the oldest first.
    """

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._most = most
        self._people: OrderedDict[bytes, tuple[Person, float]] = OrderedDict()

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self._people)

    def get(self, digest: bytes, now_s: float) -> Person | None:
        """The person of the token with this digest, if it was verified a moment ago."""
        known = self._people.get(digest)
        if known is None:
            return None
        if known[1] <= now_s:
            del self._people[digest]
            return None
        return known[0]

    def add(self, digest: bytes, person: Person, now_s: float, expires_s: float) -> None:
        """Remembers a token until it expires, at most for `REMEMBERED_S`."""
        until_s = min(expires_s, now_s + REMEMBERED_S)
        if until_s > now_s:
            self._people[digest] = (person, until_s)
            self._people.move_to_end(digest)
        while len(self._people) > self._most:
            self._people.popitem(last=False)

    def clear(self) -> None:
        """Forgets all tokens."""
        self._people.clear()
