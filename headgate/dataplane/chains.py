"""The HTTP filters of each path, whole and in order: what the one box and a mesh both run."""

from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.dataplane.filters import http_filters
from headgate.dataplane.lean_filters import lean_filters


def filter_chain(
    services: str,
    body_limit_bytes: int,
    path: HookPath = HookPath.STANDARD,
    counting: Counting = Counting.PROXY,
) -> list[HttpFilter]:
    """The filters in the order of the request path; the router comes last.

    `services` is the name of the cluster that answers. Only the standard path counts in ext_proc.
    """
    if path is HookPath.LEAN:
        return lean_filters(services, body_limit_bytes)
    return http_filters(services, body_limit_bytes, counting)
