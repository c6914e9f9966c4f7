"""envoyproxy/ai-gateway: its ext_proc in Go, with envoyproxy/ratelimit and a Redis.

Envoy has the filters that its controller makes. ext_proc finds the model at the router, and
translates at the upstream. The tokens are charged at the end of the stream.
"""

import time
from pathlib import Path
from typing import Any

from bench.peers.builds import AI_GATEWAY, go_program
from bench.peers.envoy import KEY, Door, cluster, http_filter, start_envoy
from bench.peers.processes import LeftOut, Place, Stack, free_port
from bench.peers.stacks.ratelimit import start_service
from bench.peers.stacks.two_calls import api_key, limits, rate_limit

_NAMESPACE = "io.envoy.ai_gateway"
_ROUTE = "aigateway.envoy.io"
_BACKEND, _BACKEND_KEY = "up-backend", "per_route_rule_backend_name"
_CONFIG = """
version: dev
uuid: bench
llmRequestCosts:
- {metadataKey: llm_input_token, type: InputToken, routeName: bench/r}
- {metadataKey: llm_output_token, type: OutputToken, routeName: bench/r}
- {metadataKey: llm_total_token, type: TotalToken, routeName: bench/r}
backends:
- name: up-backend
  schema: {name: OpenAI, prefix: v1}
models:
- {Name: tiny, OwnedBy: bench}
"""
_READY_S = 60.0


def ai_gateway(place: Place) -> Stack:
    """Keys by Envoy, models and tokens by ext_proc, limits by envoyproxy/ratelimit."""
    name = "ai-gateway"
    limits_port, limiter, redis = start_service(place, name)
    socket, service = _start_ext_proc(place)
    model = {"request_headers": {"header_name": "x-ai-eg-model", "descriptor_key": "model"}}
    door = Door(
        filters=[api_key(), _at_router(), rate_limit()],
        clusters=[cluster("ext_proc", socket=str(socket)), cluster("limits", port=limits_port)],
        rate_limits=limits(
            {"format": f"%DYNAMIC_METADATA({_NAMESPACE}:llm_total_token)%"}, [model]
        ),
        route_metadata={_ROUTE: {"aigw_route_name": "bench/r"}},
        upstream_metadata={_ROUTE: {_BACKEND_KEY: _BACKEND}},
        upstream_filters=[_at_upstream(), _content_length(), _codec()],
    )
    port, envoy = start_envoy(place, name, door)
    pids = {"envoy": [envoy], "services": [service, limiter], "stores": [redis]}
    return Stack(name=name, port=port, headers={"x-api-key": KEY}, pids=pids)


def _start_ext_proc(place: Place) -> tuple[Path, int]:
    program = go_program(place.peers, *AI_GATEWAY)
    file, socket = place.folder / "ai-gateway.yaml", place.folder / "ai-gateway.sock"
    file.write_text(_CONFIG)
    options = ("-configPath", file, "-extProcAddr", f"unix://{socket}", "-logLevel", "warn")
    env = {"DISABLE_PPROF": "1", "OTEL_SDK_DISABLED": "true"}
    process = place.start([program, *options, "-adminPort", free_port()], "service-ai-gateway", env)
    until_s = time.monotonic() + _READY_S
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > until_s:
            said = (place.folder / "service-ai-gateway.log").read_text(errors="replace")
            raise LeftOut(f"it did not start: {said.strip()[-200:]}")
        time.sleep(0.05)
    return socket, process.pid


def _ext_proc(mode: dict[str, str], **more: Any) -> dict[str, Any]:
    return http_filter(
        "envoy.filters.http.ext_proc/ai_gateway",
        "ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": "ext_proc"}},
        metadata_options={"receiving_namespaces": {"untyped": [_NAMESPACE]}},
        allow_mode_override=True,
        message_timeout="10s",
        processing_mode=mode,
        **more,
    )


def _at_router() -> dict[str, Any]:
    mode = {
        f"{side}_{part}_mode": "SKIP" for side in ("request", "response") for part in ("trailer",)
    }
    for side in ("request", "response"):
        mode |= {f"{side}_header_mode": "SEND", f"{side}_body_mode": "BUFFERED"}
    return _ext_proc(mode)


def _at_upstream() -> dict[str, Any]:
    host, group = "xds.upstream_host_metadata", "xds.cluster_metadata"
    attributes = [f"{at}.filter_metadata['{_ROUTE}']['{_BACKEND_KEY}']" for at in (host, group)]
    attributes.append(f"{host}.filter_metadata['{_ROUTE}']['upstream_host']")
    attributes.append(f"xds.route_metadata.filter_metadata['{_ROUTE}']['aigw_route_name']")
    mode = {"request_header_mode": "SEND", "response_header_mode": "SKIP"}
    mode |= {"request_body_mode": "NONE", "response_body_mode": "NONE"}
    return _ext_proc(mode, request_attributes=attributes)


def _content_length() -> dict[str, Any]:
    header = {
        "key": "content-length",
        "value": f"%DYNAMIC_METADATA({_NAMESPACE}:content_length)%",
    }
    append = {"append_action": "ADD_IF_ABSENT", "header": header}
    return http_filter(
        "envoy.filters.http.header_mutation",
        "header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"append": append}]},
    )


def _codec() -> dict[str, Any]:
    return http_filter("envoy.filters.http.upstream_codec", "upstream_codec.v3.UpstreamCodec")
