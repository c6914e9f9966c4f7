"""Every metric, in one table. Labels come from closed sets: tenants and models of the policy."""

from itertools import chain

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from headgate.core.adapter_metrics import AdapterMetrics
from headgate.core.cache_metrics import CacheMetrics
from headgate.core.clock import Clock
from headgate.core.declared_metric import Declared
from headgate.core.demand_metrics import DemandMetrics
from headgate.core.hook_timer import HookTimer
from headgate.core.identity_metrics import IdentityMetrics
from headgate.core.ledger_metrics import LedgerMetrics
from headgate.core.loop_metrics import LoopCounter, LoopHistogram
from headgate.core.metric_children import remembering
from headgate.core.placement_metrics import PlacementMetrics
from headgate.core.request_metrics import RequestMetrics
from headgate.core.store_metrics import StoreMetrics

_HOOK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_STALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_RATIO_BUCKETS = (0.25, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
_LATENCY_BUCKETS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5,
    10.0, 15.0, 20.0, 30.0, 60.0, 300.0,
)  # fmt: skip


class Metrics:
    """The program's metrics, registered in `registry`; tests read values back from their own."""

    requests = Declared(
        LoopCounter,
        "headgate_requests",
        "Finished requests, as the access log tells.",
        labelnames=("tenant", "model", "api", "status"),
    )
    tokens = Declared(
        LoopCounter,
        "headgate_tokens",
        "Tokens charged, by kind (prompt, cached, completion, reasoning); cached is a part of"
        " prompt and reasoning a part of completion.",
        labelnames=("tenant", "model", "kind"),
    )
    decisions = Declared(
        LoopCounter,
        "headgate_decisions",
        "Answers of each hook: ok, or the error code that the client got.",
        labelnames=("hook", "decision"),
    )
    versions = Declared(
        LoopCounter,
        "headgate_versions",
        "Requests admitted to a version: one that their conversation was on (kept), a new one"
        " (new), by the hash alone as the store did not answer (unremembered), chosen by the"
        " client (chosen), or the only one there is (only). To the spare version as their own one"
        " did not answer (down), or had a long queue (full).",
        labelnames=("base", "version", "how"),
    )
    settlements = Declared(
        LoopCounter,
        "headgate_settlements",
        "Settled requests, by where the numbers came from (usage, partial, estimate, refund),"
        " those that changed nothing (duplicate, unknown), and those left to do (deferred,"
        " forwarded).",
        labelnames=("via", "outcome"),
    )
    hook_seconds = Declared(
        LoopHistogram,
        "headgate_hook_seconds",
        "Time each hook took to answer one call.",
        labelnames=("hook",),
        buckets=_HOOK_BUCKETS,
    )
    loop_lag_seconds = Declared(
        Histogram,
        "headgate_loop_lag_seconds",
        "How late the event loop ran a timer, ten times a second. Every hook waits as long.",
        buckets=_STALL_BUCKETS,
    )
    gc_pause_seconds = Declared(
        Histogram,
        "headgate_gc_pause_seconds",
        "Time of each garbage collection; generation 2 is a full one. Every hook waits as long.",
        labelnames=("generation",),
        buckets=_STALL_BUCKETS,
    )
    estimate_ratio = Declared(
        LoopHistogram,
        "headgate_estimate_ratio",
        "Tokens held at admission divided by tokens used, for requests with usage.",
        labelnames=("model",),
        buckets=_RATIO_BUCKETS,
    )
    ttft_seconds = Declared(
        LoopHistogram,
        "headgate_ttft_seconds",
        "Time from the request's start to its first output, as seen in the proxy.",
        labelnames=("model", "version"),
        buckets=_LATENCY_BUCKETS,
    )
    store_errors = Declared(
        Counter,
        "headgate_store_errors",
        "Store operations that failed, by operation (reserve, settle, peek, count).",
        labelnames=("operation",),
    )
    shadow_refusals = Declared(
        Counter,
        "headgate_shadow_refusals",
        "Requests let in that a shadow limit would have refused, by the limit's id.",
        labelnames=("tenant", "limit"),
    )
    store_available = Declared(
        Gauge,
        "headgate_store_available",
        "1 while the store of limits is asked, 0 while each limit's on_outage decides.",
        multiprocess_mode="min",
    )
    outage_decisions = Declared(
        Counter,
        "headgate_outage_decisions",
        "Requests decided without the store, by the policy that did (closed, open, share) and"
        " its decision (admitted, refused).",
        labelnames=("policy", "decision"),
    )
    slices = Declared(
        Counter,
        "headgate_slices",
        "Slices of limits that this replica asked the store for (taken, refused) and gave back"
        " (returned).",
        labelnames=("what",),
    )
    records = Declared(
        LoopCounter,
        "headgate_records",
        "Usage records, by what became of them (written, failed, left_out).",
        labelnames=("outcome",),
    )
    descriptors = Declared(
        Counter,
        "headgate_descriptors",
        "Descriptors of the domains of --ratelimit-config, by the configured limit and what"
        " became of them.",
        labelnames=("domain", "limit", "outcome"),
    )
    descriptor_hits = Declared(
        Counter,
        "headgate_descriptor_hits",
        "Hits that these descriptors asked for, by the configured limit and what became of them.",
        labelnames=("domain", "limit", "outcome"),
    )
    descriptor_near_limit_hits = Declared(
        Counter,
        "headgate_descriptor_near_limit_hits",
        "Hits of these descriptors in the last part of their limit, by default the last fifth.",
        labelnames=("domain", "limit"),
    )
    ratelimit_config_reloads = Declared(
        Counter,
        "headgate_ratelimit_config_reloads",
        "Changes of the files of --ratelimit-config, by result (applied, refused).",
        labelnames=("result",),
    )
    ratelimit_config_refused = Declared(
        Gauge,
        "headgate_ratelimit_config_refused",
        "1 while the files of --ratelimit-config are refused, so that older ones are in force.",
        multiprocess_mode="max",
    )
    ratelimit_config_loaded_seconds = Declared(
        Gauge,
        "headgate_ratelimit_config_loaded_timestamp_seconds",
        "When the configuration of --ratelimit-config in force was loaded, in seconds since"
        " the Unix epoch.",
        multiprocess_mode="max",
    )
    certificate_reloads = Declared(
        Counter,
        "headgate_certificate_reloads",
        "Changes of a certificate, by listener (door, api) and result (applied, refused).",
        labelnames=("listener", "result"),
    )
    certificate_refused = Declared(
        Gauge,
        "headgate_certificate_refused",
        "1 while the files of a listener's certificate are refused, so that an older one is in"
        " force.",
        labelnames=("listener",),
        multiprocess_mode="max",
    )
    certificate_loaded_seconds = Declared(
        Gauge,
        "headgate_certificate_loaded_timestamp_seconds",
        "When the listener's certificate in force was loaded, in seconds since the Unix epoch.",
        labelnames=("listener",),
        multiprocess_mode="max",
    )
    certificate_expires_seconds = Declared(
        Gauge,
        "headgate_certificate_expires_timestamp_seconds",
        "When the listener's certificate in force expires, in seconds since the Unix epoch.",
        labelnames=("listener",),
        multiprocess_mode="max",
    )
    policy_reloads = Declared(
        Counter,
        "headgate_policy_reloads",
        "Changes of the policy file, by result (applied, refused).",
        labelnames=("result",),
    )
    policy_refused = Declared(
        Gauge,
        "headgate_policy_refused",
        "1 while the policy file is one that was refused, so that an older one is in force.",
        multiprocess_mode="max",
    )
    policy_loaded_seconds = Declared(
        Gauge,
        "headgate_policy_loaded_timestamp_seconds",
        "When the policy in force was loaded, in seconds since the Unix epoch.",
        multiprocess_mode="max",
    )

    workers = Declared(
        Gauge,
        "headgate_workers",
        "Worker processes that answer hooks; 0 where this process answers them itself.",
        multiprocess_mode="sum",
    )
    worker_ends = Declared(
        Counter,
        "headgate_worker_ends",
        "Workers that ended by themselves, were killed, or did not answer; each is started again.",
    )

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self.registry = registry
        self._clock = clock
        for declared in vars(type(self)).values():
            if isinstance(declared, Declared):
                declared.register(self)
        self.of_requests, self.demand = RequestMetrics(registry), DemandMetrics(registry)
        self.of_identity, self.of_ledger = IdentityMetrics(registry), LedgerMetrics(registry)
        self.of_adapters = AdapterMetrics(registry)
        self.of_store, self.of_cache = StoreMetrics(registry), CacheMetrics(registry)
        self.of_placement = PlacementMetrics(registry)
        parts = (
            self.of_requests,
            self.demand,
            self.of_identity,
            self.of_ledger,
            self.of_adapters,
            self.of_store,
            self.of_cache,
            self.of_placement,
        )
        for metric in chain.from_iterable(vars(part).values() for part in parts):
            if isinstance(metric, MetricWrapperBase):
                remembering(metric)
        self.store_available.set(1)

    @classmethod
    def gauge_modes(cls) -> dict[str, str]:
        """By the name of each gauge how the values of several workers become one."""
        rows = (row for row in vars(cls).values() if isinstance(row, Declared))
        own = {row.name: row.gauge_mode for row in rows if row.gauge_mode is not None}
        parts = (RequestMetrics, IdentityMetrics, LedgerMetrics, AdapterMetrics)
        return own | {name: mode for part in parts for name, mode in part.GAUGE_MODES.items()}

    def time_hook(self, hook: str) -> HookTimer:
        """Measures the body of a `with` as one answer of `hook`."""
        return HookTimer(self.hook_seconds.labels(hook), self._clock)
