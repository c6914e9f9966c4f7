"""Every metric, in one place. Labels come from closed sets: tenants and models of the policy."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headgate.core.clock import Clock

_HOOK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_RATIO_BUCKETS = (0.25, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The program's metrics, registered in `registry`; tests read values back from their own."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self.registry = registry
        self._clock = clock
        self.requests = Counter(
            "headgate_requests",
            "Finished requests, as the access log tells.",
            ["tenant", "model", "api", "status"],
            registry=registry,
        )
        self.tokens = Counter(
            "headgate_tokens",
            "Tokens charged, by kind (prompt, cached, completion, reasoning); cached is a part of"
            " prompt and reasoning a part of completion.",
            ["tenant", "model", "kind"],
            registry=registry,
        )
        self.decisions = Counter(
            "headgate_decisions",
            "Answers of each hook: ok, or the error code that the client got.",
            ["hook", "decision"],
            registry=registry,
        )
        self.versions = Counter(
            "headgate_versions",
            "Requests admitted to a version: one that their conversation was on (kept), a new one"
            " (new), by the hash alone as the store did not answer (unremembered), chosen by the"
            " client (chosen), or the only one there is (only).",
            ["base", "version", "how"],
            registry=registry,
        )
        self.settlements = Counter(
            "headgate_settlements",
            "Settled requests, by where the numbers came from (usage, partial, estimate, refund),"
            " those that changed nothing (duplicate, unknown), and those left to do (deferred,"
            " forwarded).",
            ["via", "outcome"],
            registry=registry,
        )
        self.hook_seconds = Histogram(
            "headgate_hook_seconds",
            "Time each hook took to answer one call.",
            ["hook"],
            buckets=_HOOK_BUCKETS,
            registry=registry,
        )
        self.estimate_ratio = Histogram(
            "headgate_estimate_ratio",
            "Tokens held at admission divided by tokens used, for requests with usage.",
            ["model"],
            buckets=_RATIO_BUCKETS,
            registry=registry,
        )
        self.ttft_seconds = Histogram(
            "headgate_ttft_seconds",
            "Time from the request's start to its first output, as seen in the proxy.",
            ["model"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.store_errors = Counter(
            "headgate_store_errors",
            "Store operations that failed, by operation (reserve, settle, peek, count).",
            ["operation"],
            registry=registry,
        )
        self.shadow_refusals = Counter(
            "headgate_shadow_refusals",
            "Requests let in that a shadow limit would have refused, by the limit's id.",
            ["tenant", "limit"],
            registry=registry,
        )
        self.store_available = Gauge(
            "headgate_store_available",
            "1 while the store of limits is asked, 0 while each limit's on_outage decides.",
            registry=registry,
        )
        self.store_available.set(1)
        self.store_degraded_seconds = Counter(
            "headgate_store_degraded_seconds",
            "Seconds during which headgate_store_available was 0.",
            registry=registry,
        )
        self.outage_decisions = Counter(
            "headgate_outage_decisions",
            "Requests decided without the store, by the policy that did (closed, open, share) and"
            " its decision (admitted, refused).",
            ["policy", "decision"],
            registry=registry,
        )
        self.outage_reconciled = Counter(
            "headgate_outage_reconciled",
            "What the store was told after an outage: reservations and their tokens, reservations"
            " that had expired by then, settlements.",
            ["what"],
            registry=registry,
        )
        self.slices = Counter(
            "headgate_slices",
            "Slices of limits that this replica asked the store for (taken, refused) and gave back"
            " (returned).",
            ["what"],
            registry=registry,
        )
        self.records = Counter(
            "headgate_records",
            "Usage records, by what became of them (written, failed).",
            ["outcome"],
            registry=registry,
        )
        self.descriptors = Counter(
            "headgate_descriptors",
            "Descriptors of the domains of --ratelimit-config, by the configured limit and what"
            " became of them.",
            ["domain", "limit", "outcome"],
            registry=registry,
        )
        self.ratelimit_config_reloads = Counter(
            "headgate_ratelimit_config_reloads",
            "Changes of the files of --ratelimit-config, by result (applied, refused).",
            ["result"],
            registry=registry,
        )
        self.ratelimit_config_loaded_seconds = Gauge(
            "headgate_ratelimit_config_loaded_timestamp_seconds",
            "When the configuration of --ratelimit-config in force was loaded, in seconds since"
            " the Unix epoch.",
            registry=registry,
        )
        self.certificate_reloads = Counter(
            "headgate_certificate_reloads",
            "Changes of the door's certificate, by result (applied, refused).",
            ["result"],
            registry=registry,
        )
        self.certificate_loaded_seconds = Gauge(
            "headgate_certificate_loaded_timestamp_seconds",
            "When the door's certificate in force was loaded, in seconds since the Unix epoch.",
            registry=registry,
        )
        self.certificate_expires_seconds = Gauge(
            "headgate_certificate_expires_timestamp_seconds",
            "When the door's certificate in force expires, in seconds since the Unix epoch.",
            registry=registry,
        )
        self.policy_reloads = Counter(
            "headgate_policy_reloads",
            "Changes of the policy file, by result (applied, refused).",
            ["result"],
            registry=registry,
        )
        self.policy_loaded_seconds = Gauge(
            "headgate_policy_loaded_timestamp_seconds",
            "When the policy in force was loaded, in seconds since the Unix epoch.",
            registry=registry,
        )

    @contextmanager
    def time_hook(self, hook: str) -> Iterator[None]:
        """Measures the body as one answer of `hook`."""
        start_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self.hook_seconds.labels(hook).observe(self._clock.monotonic_s() - start_s)
