"""Envoy alone: what everything else is compared with."""

from bench.peers.envoy import Door, start_envoy
from bench.peers.processes import Place, Stack


def plain(place: Place) -> Stack:
    """No filter except the router, and no log."""
    port, pid = start_envoy(place, "plain", Door(logs=False))
    return Stack(name="plain", port=port, headers={}, pids={"envoy": [pid]})
