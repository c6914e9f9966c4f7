"""The filter that tells which requests belong together, without the help of their clients."""

from collections.abc import Sequence

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from headgate.core.contract import Namespace
from headgate.core.lean_contract import HookPath
from headgate.dataplane.filters import lua
from headgate.dataplane.hook_calls import http_filter

READ_BEFORE = {HookPath.STANDARD: "headgate.ext_proc", HookPath.LEAN: str(Namespace.CALLER)}
"""The filter that sends its metadata to the services, right after it."""
SALT_FORM = "[A-Za-z0-9]{16,64}"


def affinity_reader(salt: str) -> HttpFilter:
    """Hashes the beginning of each prompt with this salt, which all proxies share."""
    parts = (f'local SALT = "{salt}"', lua("json_strings.lua"), lua("affinity_reader.lua"))
    source = DataSource(inline_string="\n".join(parts))
    return http_filter("headgate.affinity_reader", Lua(default_source_code=source))


def with_affinity(chain: Sequence[HttpFilter], path: HookPath, salt: str) -> list[HttpFilter]:
    """The chain of this path with the affinity reader in it."""
    at = [each.name for each in chain].index(READ_BEFORE[path])
    return [*chain[:at], affinity_reader(salt), *chain[at:]]
