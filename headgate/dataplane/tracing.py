"""Envoy's spans: which requests get one, what is written on it, and where it goes.

Envoy's OpenTelemetry tracer makes a span for each request, and below it one for each call of a hook
and one for the upstream. The tags are read from dynamic metadata when the request ends, so the
services do nothing for a trace. Each value is a text, also that of a number:
`examples/otel-collector.yaml` has the rules by which a collector makes numbers of them.
"""

import json
from collections.abc import Mapping

from envoy_data_plane.envoy.config.bootstrap.v3 import RuntimeLayer
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerTracing,
)
from envoy_data_plane.envoy.extensions.tracers.opentelemetry.samplers.v3 import (
    ParentBasedSamplerConfig,
    TraceIdRatioBasedSamplerConfig,
)
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag
from envoy_data_plane.envoy.type.v3 import (
    FractionalPercent,
    FractionalPercentDenominatorType,
    Percent,
)
from envoy_data_plane.google.protobuf import Any, Struct, Value

from headgate.core.contract import AdmissionKey, CallerKey, LimitsKey, Namespace, UsageKey
from headgate.dataplane.box import Tracing
from headgate.dataplane.hook_calls import grpc_service
from headgate.dataplane.upstream import collector_cluster

COLLECTOR = "headgate_collector"
COLLECTOR_PORT = 4317
"""The port of OTLP over gRPC (OpenTelemetry protocol exporter)."""
SPANS_IN_A_BATCH, BATCH_INTERVAL_MS = 200, 1000
"""Envoy would send 5 spans at a time, thus a message for each request, or after 5 s."""
SMALLEST_RATIO = 0.0001
"""Envoy samples by whole parts of 10,000."""
_MILLION = 1_000_000


def _value(namespace: Namespace, key: str) -> str:
    return f"%DYNAMIC_METADATA({namespace}:{key})%"


def _decided(
    key: str, namespace: Namespace = Namespace.ADMISSION, other: Mapping[str, str] | None = None
) -> str:
    """A value of the decision; what the command `other` says if there is none.

    A refusal of the lean path is in ext_authz's namespace alone, as no later filter runs.
    """
    operators = [_metadata(space, key) for space in (namespace, Namespace.CALLER)]
    operators += [] if other is None else [other]
    return f"%COALESCE({json.dumps({'operators': operators})})%"


def _metadata(namespace: Namespace, key: str) -> Mapping[str, str]:
    return {"command": "DYNAMIC_METADATA", "param": f"{namespace}:{key}"}


_METHOD = {"command": "REQ", "param": ":METHOD"}
_DETAILS = {"command": "RESPONSE_CODE_DETAILS"}
_OPERATION = (
    f"{_decided(AdmissionKey.API, other=_METHOD)} {_decided(AdmissionKey.MODEL, other=_DETAILS)}"
)

TAGS: Mapping[str, str] = {
    "gen_ai.provider.name": "vllm",
    "gen_ai.operation.name": _decided(AdmissionKey.API),
    "gen_ai.request.model": _decided(AdmissionKey.MODEL),
    "gen_ai.usage.input_tokens": _value(Namespace.USAGE, UsageKey.PROMPT),
    "gen_ai.usage.output_tokens": _value(Namespace.USAGE, UsageKey.COMPLETION),
    "gen_ai.usage.cache_read.input_tokens": _value(Namespace.USAGE, UsageKey.CACHED),
    "gen_ai.usage.reasoning.output_tokens": _value(Namespace.USAGE, UsageKey.REASONING),
    "http.url": "%PATH(NQ)%",
    "user.id": _value(Namespace.CALLER, CallerKey.USER),
    "headgate.tenant": _value(Namespace.CALLER, CallerKey.TENANT),
    "headgate.key": _value(Namespace.CALLER, CallerKey.KEY),
    "headgate.reservation": _decided(AdmissionKey.RESERVATION),
    "headgate.version": _decided(AdmissionKey.VERSION),
    "headgate.estimate": _decided(AdmissionKey.ESTIMATE),
    "headgate.refused_by": _decided(LimitsKey.REFUSED_BY, Namespace.LIMITS),
    "headgate.events": _value(Namespace.USAGE, UsageKey.EVENTS),
    "headgate.complete": _value(Namespace.USAGE, UsageKey.COMPLETE),
    "headgate.stream_error": _value(Namespace.USAGE, UsageKey.ERROR),
    "headgate.start_ms": "%START_TIME(%s%3f)%",
    "headgate.first_event_ms": _value(Namespace.USAGE, UsageKey.FIRST_EVENT_MS),
    "headgate.to_upstream_ms": "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ms)%",
    "headgate.details": "%RESPONSE_CODE_DETAILS%",
}
"""The tags of a request's spans, each with its value in Envoy's format. A tag whose value is
absent is left out. `gen_ai.*` are names of OpenTelemetry's semantic-conventions-genai. A mesh has
its own in `istio/components/tracing/telemetry-traces.yaml`."""


def tracer(settings: Tracing) -> HttpConnectionManagerTracing:
    """The settings of tracing: the ratio of requests, the tags and the collector.

    A client's `traceparent` is continued, but its flag does not raise the ratio. The door removes
    the headers that would.
    """
    config = OpenTelemetryConfig(
        service_name="headgate",
        grpc_service=grpc_service(COLLECTOR),
        sampler=_client_sampler(settings.ratio) if settings.follows_client else None,
    )
    return HttpConnectionManagerTracing(
        random_sampling=Percent(value=100 if settings.follows_client else settings.ratio * 100),
        spawn_upstream_span=True,
        operation=_OPERATION,
        custom_tags=[CustomTag(tag=tag, value=value) for tag, value in TAGS.items()],
        provider=TracingHttp(
            name="envoy.tracers.opentelemetry",
            typed_config=Any.pack(config),
        ),
    )


def collector(settings: Tracing) -> Cluster:
    """The collector's cluster. Raises BadUpstream for a URL that Envoy cannot use."""
    return collector_cluster(COLLECTOR, settings.collector, COLLECTOR_PORT)


def batches() -> RuntimeLayer:
    """How many spans go into one message, and how long they wait for it."""
    numbers = {"min_flush_spans": SPANS_IN_A_BATCH, "flush_interval_ms": BATCH_INTERVAL_MS}
    fields = {f"tracing.opentelemetry.{name}": Value(number_value=n) for name, n in numbers.items()}
    return RuntimeLayer(name="tracing", static_layer=Struct(fields=fields))


def _client_sampler(ratio: float) -> TypedExtensionConfig:
    """Samples as the client's flag says, and by the ratio where no client says anything."""
    by_ratio = TraceIdRatioBasedSamplerConfig(
        sampling_percentage=FractionalPercent(
            numerator=round(ratio * _MILLION), denominator=FractionalPercentDenominatorType.MILLION
        )
    )
    return _sampler(
        "parent_based",
        ParentBasedSamplerConfig(wrapped_sampler=_sampler("trace_id_ratio_based", by_ratio)),
    )


def _sampler(
    name: str, config: ParentBasedSamplerConfig | TraceIdRatioBasedSamplerConfig
) -> TypedExtensionConfig:
    return TypedExtensionConfig(
        name=f"envoy.tracers.opentelemetry.samplers.{name}", typed_config=Any.pack(config)
    )
