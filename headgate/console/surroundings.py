"""The parts that pages ask beyond the database: the limits' counters, metrics, the pods."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ratelimit.store.protocol import PeekQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The running parts around the console.

    `peek` returns the counts of a tenant's limits, and raises StoreError. `metrics` returns the
    program's own, as Prometheus reads them. `envoy` returns those of the box's Envoy, or None while
    it does not answer; it is None where no Envoy of ours runs. `authorities` are those that the
    certificates of pods need, None for the system's.
    """

    peek: Callable[[PeekQuery], Awaitable[Mapping[str, int]]]
    metrics: Callable[[], Awaitable[str]]
    envoy: Callable[[], Awaitable[str | None]] | None = None
    authorities: Path | None = None
