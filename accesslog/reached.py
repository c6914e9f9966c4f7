"""Finds the versions of a model that answered a request, or could not be reached. Pure.

A request whose own version refuses connections may be answered by the spare one. Envoy then logs
the cluster of that one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from accesslog.types import LogEntry, UsageRecord
from headgate.core.contract import AdmissionKey

_UNREACHED = frozenset({"UH", "UF"})
"""Envoy's flags where no pod is healthy, and where none took the connection."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A version of a base model was asked by a request that began at this Unix time."""

    base: str
    version: str
    began_s: float
    answered: bool


def reached(entry: LogEntry, record: UsageRecord) -> Iterator[Reached]:
    """The versions that a finished request was for, or has met; none for a model without any."""
    own, base = entry.admission.get(AdmissionKey.VERSION), record.base
    if not own or base is None:
        return
    began_s = (entry.start_ns or 0) / 1e9
    last = record.version or own
    if record.upstream_status is not None:
        yield Reached(base, last, began_s, answered=True)
    elif not _UNREACHED.isdisjoint(entry.flags):
        yield Reached(base, last, began_s, answered=False)
    if last != own:
        yield Reached(base, own, began_s, answered=False)
