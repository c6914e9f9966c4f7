"""Settlements that one replica sends another, through the store that they share. Pure.

Envoy spreads its calls: a request may end at another replica than the one that holds it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields

from ratelimit.store.protocol import MAX_COUNT, Letter, Spent

MAX_WAITING = 100_000
"""Settlements that wait to be posted: some 40 MB."""

_IN_ONE_LETTER = 1000
_KINDS = tuple(one.name for one in fields(Spent))


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a reservation used."""

    tenant: str
    reservation: str
    spent: Spent


class Outbox:
    """Settlements on their way to other replicas, until the store has taken their letters.

    `new_id` makes ids that no other letter has.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._waiting: dict[str, list[Settlement]] = {}
        self._letters: dict[str, tuple[Letter, Sequence[Settlement]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, replica: str, settlement: Settlement) -> bool:
        """Keeps it for the next letter to `replica`. False when there is no room."""
        if self._count >= MAX_WAITING:
            return False
        self._waiting.setdefault(replica, []).append(settlement)
        self._count += 1
        return True

    def letters(self) -> list[Letter]:
        """The letters to post now: also those from before that are not known to have arrived."""
        for replica, settlements in self._waiting.items():
            for start in range(0, len(settlements), _IN_ONE_LETTER):
                some = settlements[start : start + _IN_ONE_LETTER]
                letter = Letter(replica, self._new_id(), write(some))
                self._letters[letter.id] = (letter, some)
        self._waiting.clear()
        return [letter for letter, _ in self._letters.values()]

    def posted(self, letters: Iterable[Letter]) -> Iterator[tuple[str, Settlement]]:
        """Forgets letters that have arrived; gives what stood in them, by their addressee."""
        for letter in letters:
            _, settlements = self._letters.pop(letter.id)
            self._count -= len(settlements)
            yield from ((letter.to, one) for one in settlements)


def write(settlements: Iterable[Settlement]) -> str:
    """The text of a letter: ASCII, whatever is in the names."""
    return json.dumps([[one.tenant, one.reservation, asdict(one.spent)] for one in settlements])


def read(text: str) -> list[Settlement]:
    """What stands in a letter. Raises ValueError for one that no replica has written.

    Kinds of usage that this version does not know are left out.
    """
    settlements = []
    for entry in _list(json.loads(text)):
        tenant, reservation, used = _list(entry)
        if not (isinstance(tenant, str) and isinstance(reservation, str)):
            raise ValueError("a name is not text")
        settlements.append(Settlement(tenant, reservation, _spent(used)))
    return settlements


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _spent(used: object) -> Spent:
    if not isinstance(used, dict):
        raise ValueError("usage is not a mapping")
    counts = {kind: used.get(kind, 0) for kind in _KINDS}
    if not all(type(count) is int and 0 <= count <= MAX_COUNT for count in counts.values()):
        raise ValueError("usage is not a count")
    return Spent(**counts)
