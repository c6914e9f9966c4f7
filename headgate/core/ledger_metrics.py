"""The metrics of the way from a usage record to the database."""

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge

OUTCOMES = ("added", "repeated", "bad")


class LedgerMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    GAUGE_MODES: ClassVar = {
        "headgate_ledger_current_timestamp_seconds": "max",
        "headgate_ledger_spool_bytes": "max",
    }
    """How the values of several workers become one: only the parent has any."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "headgate_ledger_records",
            "Lines of the spool that came to the database: records that were new (added), that it"
            " had (repeated), and lines that are no records (bad).",
            labelnames=("outcome",),
            registry=registry,
        )
        self.lost = Counter(
            "headgate_ledger_lost_records",
            "Records that the spool did not take, as it or its disk was full.",
            registry=registry,
        )
        self.current_seconds = Gauge(
            "headgate_ledger_current_timestamp_seconds",
            "When the database last had every record of the spool, in seconds since the Unix epoch;"
            " 1 before the first time, 0 without a ledger.",
            registry=registry,
        )
        self.spool_bytes = Gauge(
            "headgate_ledger_spool_bytes",
            "The size of the spool: records that are not in the database, and up to one segment of"
            " each worker that is.",
            registry=registry,
        )
