"""The metrics of who calls: tokens and their issuers, and the keys of the database."""

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge


class IdentityMetrics:
    """Registered in `registry` with the rest of the program's metrics."""

    GAUGE_MODES: ClassVar = {
        "headgate_issuer_keys_loaded_timestamp_seconds": "max",
        "headgate_keys": "max",
        "headgate_keys_polled_timestamp_seconds": "oldest",
    }
    """How the values of several workers become one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens_checked = Counter(
            "headgate_tokens_checked",
            "Tokens of issuers that were checked, by issuer and outcome: verified, or why it was"
            " refused. A token is checked again after a minute.",
            labelnames=("issuer", "outcome"),
            registry=registry,
        )
        self.issuer_fetches = Counter(
            "headgate_issuer_fetches",
            "Fetches of an issuer's keys, by result (fetched, failed).",
            labelnames=("issuer", "result"),
            registry=registry,
        )
        self.issuer_keys_loaded_seconds = Gauge(
            "headgate_issuer_keys_loaded_timestamp_seconds",
            "When an issuer last answered with its keys, in seconds since the Unix epoch.",
            labelnames=("issuer",),
            registry=registry,
        )
        self.keys = Gauge(
            "headgate_keys",
            "Live secrets of keys of the database that this replica holds in its memory.",
            registry=registry,
        )
        self.keys_polled_seconds = Gauge(
            "headgate_keys_polled_timestamp_seconds",
            "When the keys of the database were last known to be current, in seconds since the Unix"
            " epoch; 1 before the first time, 0 without a database.",
            registry=registry,
        )
