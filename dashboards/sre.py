"""For those on call: is the objective kept, what fails, where is the time, what is full?"""

from dashboards.board import RATE, Board, Line, Only, Panel, Unit, quantile

_BY_MODEL = "{{model}} {{version}}"
_HAD_UPSTREAM = 'ended!="-"'
_BAD_SELECTORS = ('class="5xx"', 'class!="5xx",ended="upstream_broke"')
OBJECTIVE = "0.999"
"""Of all requests, those that are answered. The alerts have the same objective."""


def _bad(window: str, by: str = "") -> str:
    parts = (f"rate(headgate_answers_total{{{each}}}[{window}])" for each in _BAD_SELECTORS)
    return f"sum{by}({' or '.join(parts)})"


def _all(window: str, by: str = "") -> str:
    return f"sum{by}(rate(headgate_answers_total[{window}]))"


_OBJECTIVES = (
    Panel(
        title="Error budget left, 30 days",
        is_number=True,
        unit=Unit.RATIO,
        lines=(Line(f"1 - {_bad('30d')} / {_all('30d')} / (1 - {OBJECTIVE})"),),
        text="The objective is 99.9 % of requests without a 5xx and without a broken answer.",
    ),
    Panel(
        title="Requests that fail or break off",
        unit=Unit.RATIO,
        lines=(
            Line(
                f"{_bad(RATE, ' by (model, version) ')} / {_all(RATE, ' by (model, version) ')}",
                _BY_MODEL,
            ),
        ),
    ),
    Panel(
        title="Alerts that fire now",
        is_number=True,
        lines=(Line('count(ALERTS{alertname=~"Headgate.*",alertstate="firing"}) or vector(0)'),),
    ),
)
_REASONS = (
    Panel(
        title="Requests by model and version",
        unit=Unit.PER_SECOND,
        lines=(Line(_all(RATE, " by (model, version) "), _BY_MODEL),),
    ),
    Panel(
        title="Answers by status and ending",
        unit=Unit.PER_SECOND,
        lines=(Line(_all(RATE, " by (class, ended) "), "{{class}} {{ended}}"),),
    ),
    Panel(
        title="Refusals by reason",
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                "sum by (hook, decision)"
                f' (rate(headgate_decisions_total{{decision!~"ok|preflight|health"}}[{RATE}]))',
                "{{hook}} {{decision}}",
            ),
        ),
    ),
    Panel(
        title="No answer for lack of pods",
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                f"sum by (base, version) (rate(headgate_capacity_refusals_total[{RATE}]))",
                "{{base}} {{version}}",
            ),
        ),
    ),
)
_TIMES = (
    Panel(
        title="Time to the first output",
        unit=Unit.SECONDS,
        lines=tuple(
            Line(quantile(share, "headgate_ttft_seconds", "model, version", ""), legend)
            for share, legend in (("0.5", f"{_BY_MODEL} p50"), ("0.99", f"{_BY_MODEL} p99"))
        ),
    ),
    Panel(
        title="Time to the end of an answer, p95",
        unit=Unit.SECONDS,
        lines=(
            Line(quantile("0.95", "headgate_request_seconds", "model, version", ""), _BY_MODEL),
        ),
    ),
    Panel(
        title="Hooks, p99",
        unit=Unit.SECONDS,
        lines=(Line(quantile("0.99", "headgate_hook_seconds", "hook", ""), "{{hook}}"),),
    ),
)
_SATURATION = (
    Panel(
        title="Stalls of the services, p99",
        unit=Unit.SECONDS,
        lines=(Line(quantile("0.99", "headgate_loop_lag_seconds", "", ""), "event loop"),),
    ),
    Panel(
        title="Processors in use",
        lines=(
            Line(
                f"rate(process_cpu_seconds_total[{RATE}]) and on (instance) headgate_build_info",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        title="Memory",
        unit=Unit.BYTES,
        lines=(
            Line(
                "process_resident_memory_bytes and on (instance) headgate_build_info",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        title="Store there",
        lines=(Line("headgate_store_available", "{{instance}}"),),
        text="0: Redis is away, and each limit's on_outage decides.",
    ),
    Panel(
        title="Store errors and decisions without it",
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                f"sum by (operation) (rate(headgate_store_errors_total[{RATE}]))",
                "error: {{operation}}",
            ),
            Line(
                f"sum by (policy, decision) (rate(headgate_outage_decisions_total[{RATE}]))",
                "{{policy}} {{decision}}",
            ),
        ),
    ),
    Panel(
        title="Redis, p50 and p99 of an operation",
        unit=Unit.SECONDS,
        lines=tuple(
            Line(quantile(share, "headgate_store_seconds", "", ""), legend)
            for share, legend in (("0.5", "p50"), ("0.99", "p99"))
        ),
        text="Empty with the limits in memory.",
    ),
    Panel(
        title="Requests in flight",
        lines=(
            Line(
                "sum by (base, version) (increase(headgate_reserved_requests_total[15m]))"
                " - sum by (base, version) (increase(headgate_settled_requests_total[15m]))",
                "{{base}} {{version}}",
            ),
        ),
        text="Of those that began in the last 15 minutes.",
    ),
    Panel(
        title="PostgreSQL: seconds since keys and ledger were current",
        unit=Unit.SECONDS,
        lines=(
            Line("time() - (headgate_keys_polled_timestamp_seconds > 1)", "{{instance}} keys"),
            Line("time() - (headgate_ledger_current_timestamp_seconds > 1)", "{{instance}} ledger"),
        ),
        text="Empty without a database.",
    ),
    Panel(
        title="Records that wait for PostgreSQL",
        unit=Unit.BYTES,
        lines=(Line("headgate_ledger_spool_bytes", "{{instance}}"),),
    ),
    Panel(
        title="Usage records",
        unit=Unit.PER_SECOND,
        lines=(Line(f"sum by (outcome) (rate(headgate_records_total[{RATE}]))", "{{outcome}}"),),
    ),
    Panel(
        title="Proxies that send their access log",
        lines=(Line("sum(headgate_access_log_streams)", "streams"),),
    ),
    Panel(
        title="Running versions",
        lines=(Line("count by (version) (headgate_build_info)", "{{version}}"),),
    ),
)
_POD = 'cluster_name=~"outbound.*\\\\.vllm\\\\.svc.*"'
_SOURCE_OF_VLLM = 'reporter="source",destination_service_namespace="vllm"'
_MESH = (
    Panel(
        title="Requests by Envoy's flags",
        only=Only.MESH,
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                "sum by (destination_service_name, response_flags)"
                f" (rate(istio_requests_total{{{_SOURCE_OF_VLLM}}}[{RATE}]))",
                "{{destination_service_name}} {{response_flags}}",
            ),
        ),
    ),
    Panel(
        title="Pods that take requests, and ejected ones",
        only=Only.MESH,
        lines=(
            Line(
                f"max by (cluster_name) (envoy_cluster_membership_healthy{{{_POD}}})",
                "{{cluster_name}}",
            ),
            Line(
                "max by (cluster_name)"
                f" (envoy_cluster_outlier_detection_ejections_active{{{_POD}}})",
                "{{cluster_name}} ejected",
            ),
        ),
    ),
    Panel(
        title="Connections of each gateway",
        only=Only.MESH,
        lines=(Line("envoy_server_total_connections", "{{instance}}"),),
    ),
    Panel(
        title="Memory of each gateway",
        only=Only.MESH,
        unit=Unit.BYTES,
        lines=(Line("envoy_server_memory_allocated", "{{instance}}"),),
    ),
    Panel(
        title="Refused by a circuit breaker, and retried",
        only=Only.MESH,
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                "sum by (cluster_name)"
                f" (rate(envoy_cluster_upstream_rq_pending_overflow{{{_POD}}}[{RATE}]))",
                "{{cluster_name}} refused",
            ),
            Line(
                f"sum by (cluster_name) (rate(envoy_cluster_upstream_rq_retry{{{_POD}}}[{RATE}]))",
                "{{cluster_name}} retried",
            ),
        ),
    ),
)

BOARD = Board(
    name="sre",
    title="Headgate: on call",
    panels=(*_OBJECTIVES, *_REASONS, *_TIMES, *_SATURATION, *_MESH),
)
