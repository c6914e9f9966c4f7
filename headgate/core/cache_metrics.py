"""The metrics of the answer cache. All series exist with 0 before the first request."""

from prometheus_client import CollectorRegistry, Counter

LOOKUPS = (
    "hit",
    "over_limit",
    "absent",
    "old",
    "not_wanted",
    "not_deterministic",
    "odd_body",
    "away",
)
ANSWERS = ("stored", "purged", "too_large", "failed", "not_whole", "no_room")


class CacheMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lookups = Counter(
            "headgate_cache_lookups",
            "Requests whose bodies came for the answer cache, by outcome: a hit, a hit that a limit"
            " refused (over_limit), or the cause of a miss.",
            labelnames=("outcome",),
            registry=registry,
        )
        self.answers = Counter(
            "headgate_cache_answers",
            "Answers that came for the answer cache, by what became of them (stored, purged,"
            " too_large, failed, not_whole, no_room).",
            labelnames=("outcome",),
            registry=registry,
        )
        self.stored_bytes = Counter(
            "headgate_cache_stored_bytes",
            "Bytes of the answers that were stored.",
            registry=registry,
        )
        for outcome in LOOKUPS:
            self.lookups.labels(outcome)
        for outcome in ANSWERS:
            self.answers.labels(outcome)
