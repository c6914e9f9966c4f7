"""The metrics of the choice of pods."""

from enum import StrEnum
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter


class Choice(StrEnum):
    """How a pod was chosen for a request."""

    OWN = "own"
    """The first one of its affinity."""
    NEXT = "next"
    """A later one of its affinity, as the bound lets the first one take no more."""
    FEWEST = "fewest"
    """The one with the fewest requests, without an affinity."""


class AnsweredBy(StrEnum):
    """The pod that was asked last, beside the list of the request."""

    FIRST = "first"
    LATER = "later"
    OTHER = "other"
    """None of the list: Envoy has chosen it."""
    NONE = "none"


class PlacementMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    GAUGE_MODES: ClassVar[dict[str, str]] = {}

    def __init__(self, registry: CollectorRegistry) -> None:
        self.choices = Counter(
            "headgate_placements",
            "Requests for which Headgate chose the pod: the first one of their affinity (own), a"
            " later one as that was full (next), or the one with the fewest requests (fewest).",
            labelnames=("how",),
            registry=registry,
        )
        self.answers = Counter(
            "headgate_placement_answers",
            "Finished requests with a list of pods, by the pod that was asked last: the first one"
            " of the list, a later one, one that Envoy chose (other), or none.",
            labelnames=("base", "version", "pod"),
            registry=registry,
        )
