"""Settlements that one replica forwards to another, in batches through their store. Pure.

Envoy spreads its calls: a request may end at another replica than the one that holds it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import asdict

from ratelimit.store.protocol import MAX_COUNT, Spent
from ratelimit.store.shared import Batch

MAX_WAITING = 100_000
"""How many settlements may wait for the store: some 40 MB."""

_MAX_IN_BATCH = 1000
_KINDS = Spent.__struct_fields__


@dataclass(frozen=True, slots=True)
class ForwardedSettlement:
    """The use of a reservation that another replica holds."""

    tenant: str
    reservation: str
    spent: Spent


class ForwardingQueue:
    """Settlements for other replicas, until the store has taken their batches.

    `new_id` makes ids that no other batch has.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._waiting: dict[str, list[ForwardedSettlement]] = {}
        self._batches: dict[str, tuple[Batch, Sequence[ForwardedSettlement]]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many settlements wait."""
        return self._count

    def add(self, replica: str, settlement: ForwardedSettlement) -> bool:
        """Keeps it for the next batch to `replica`. False when the queue is full."""
        if self._count >= MAX_WAITING:
            return False
        self._waiting.setdefault(replica, []).append(settlement)
        self._count += 1
        return True

    def batches(self) -> list[Batch]:
        """The batches to store now, with earlier ones that the store may not have got."""
        for replica, settlements in self._waiting.items():
            for start in range(0, len(settlements), _MAX_IN_BATCH):
                group = settlements[start : start + _MAX_IN_BATCH]
                batch = Batch(replica, self._new_id(), encode(group))
                self._batches[batch.id] = (batch, group)
        self._waiting.clear()
        return [batch for batch, _ in self._batches.values()]

    def stored(self, batches: Iterable[Batch]) -> Iterator[tuple[str, ForwardedSettlement]]:
        """Forgets batches that the store has; gives their settlements, by their receiver."""
        for batch in batches:
            _, settlements = self._batches.pop(batch.id)
            self._count -= len(settlements)
            yield from ((batch.to, settlement) for settlement in settlements)


def encode(settlements: Iterable[ForwardedSettlement]) -> str:
    """The text of a batch: JSON in ASCII, whatever the names contain."""
    return json.dumps([[each.tenant, each.reservation, asdict(each.spent)] for each in settlements])


def decode(text: str) -> list[ForwardedSettlement]:
    """The settlements of a batch. Raises ValueError for a text that no replica has written.

    Kinds of usage that this version does not know are left out.
    """
    settlements = []
    for entry in _list(json.loads(text)):
        tenant, reservation, used = _list(entry)
        if not (isinstance(tenant, str) and isinstance(reservation, str)):
            raise ValueError("a name is not text")
        settlements.append(ForwardedSettlement(tenant, reservation, _spent(used)))
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
