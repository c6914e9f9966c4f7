"""Envoy with a rate limit service: a key, a check of the request, and its cost at the end.

This is less work than Headgate's: no tokens are counted, no identity service is asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.peers.envoy import KEY, Door, cluster, http_filter, start_envoy
from bench.peers.processes import Place, Stack

DOMAIN = "bench"
RULES = """domain: bench
descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 4000000000}
    descriptors:
      - key: model
        rate_limit: {unit: day, requests_per_unit: 4000000000}
"""
COST = 10


def two_calls(place: Place, name: str, port: int, pids: Mapping[str, Sequence[int]]) -> Stack:
    """Envoy in front of the rate limit service on `port`, whose processes are `pids`."""
    door = Door(
        filters=[api_key(), rate_limit()],
        clusters=[cluster("limits", port=port)],
        rate_limits=limits({"number": COST}),
    )
    door_port, envoy = start_envoy(place, name, door)
    headers = {"x-api-key": KEY}
    return Stack(name=name, port=door_port, headers=headers, pids={"envoy": [envoy], **pids})


def api_key() -> dict[str, Any]:
    """Envoy's own check of a key."""
    return http_filter(
        "envoy.filters.http.api_key_auth",
        "api_key_auth.v3.ApiKeyAuth",
        credentials=[{"key": KEY, "client": "alice"}],
        key_sources=[{"header": "x-api-key"}],
        forwarding={"header": "x-user-id", "hide_credentials": True},
    )


def rate_limit() -> dict[str, Any]:
    """Envoy's filter, which asks the cluster `limits`. It refuses where nobody answers."""
    return http_filter(
        "envoy.filters.http.ratelimit",
        "ratelimit.v3.RateLimit",
        domain=DOMAIN,
        timeout="2s",
        failure_mode_deny=True,
        rate_limit_service={
            "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
            "transport_api_version": "V3",
        },
    )


def limits(cost: dict[str, Any], more: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """One request at its begin, and `cost` at its end, for the user and what `more` adds."""
    user = {"request_headers": {"header_name": "x-user-id", "descriptor_key": "user"}}
    actions = [user, *more]
    at_end = {"actions": actions, "hits_addend": cost, "apply_on_stream_done": True}
    return [{"actions": actions, "hits_addend": {"number": 1}}, at_end]
