"""The metrics of the ledger: the way of records into the database, and of notices out of it."""

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge

OUTCOMES = ("added", "repeated", "bad")
NOTICE_CHANNELS = ("webhook", "slack", "mail")
NOTICE_OUTCOMES = ("sent", "failed", "given_up")


class LedgerMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    GAUGE_MODES: ClassVar = {
        "headgate_ledger_current_timestamp_seconds": "max",
        "headgate_ledger_spool_bytes": "max",
        "headgate_notices_looked_timestamp_seconds": "max",
        "headgate_notices_waiting_since_timestamp_seconds": "oldest",
    }
    """How the values of several workers become one. Only the parent has a spool."""

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
        self._add_notices(registry)

    def _add_notices(self, registry: CollectorRegistry) -> None:
        self.notice_deliveries = Counter(
            "headgate_notice_deliveries",
            "Tries to send a notice, by channel: its receiver took it (sent), or did not (failed)"
            " and is not asked again (given_up).",
            labelnames=("channel", "outcome"),
            registry=registry,
        )
        self.notices_looked_seconds = Gauge(
            "headgate_notices_looked_timestamp_seconds",
            "When thresholds of limits were last looked at, in seconds since the Unix epoch; 1"
            " before the first time, 0 where the policy has none.",
            registry=registry,
        )
        self.notices_waiting_since = Gauge(
            "headgate_notices_waiting_since_timestamp_seconds",
            "When the oldest notice was decided that no receiver has taken, in seconds since the"
            " Unix epoch; 0 if none waits.",
            registry=registry,
        )
