"""How often an address may fail to show a known key. Counts failures only: a good key passes."""

from collections import OrderedDict
from ipaddress import IPv6Address, IPv6Network, ip_address

DEFAULT_PER_MINUTE = 30
MAX_ADDRESSES = 10_000
_WINDOW_S = 60.0
_OTHERS = ""
"""All addresses that find no room, and those that are none, share one count."""


class FailureLimit:
    """A bucket of `per_minute` failures for each address, which fills again evenly in a minute.

    At most `max_addresses` are told apart, so that memory and the failures let through in a
    minute are bounded whoever comes. An IPv6 address counts as its /64, which is what one
    client is given.
    """

    def __init__(
        self, per_minute: int = DEFAULT_PER_MINUTE, max_addresses: int = MAX_ADDRESSES
    ) -> None:
        self._each_s = _WINDOW_S / per_minute
        self._max_addresses = max_addresses
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many counts are kept."""
        return len(self._full_at_s)

    def count(self, address: str, now_s: float) -> float | None:
        """Counts a failure; None within the limit, else the seconds until one is within it.

        `now_s` is of a clock that never steps back. A failure beyond the limit is not counted.
        """
        self._forget_full(now_s)
        client = _client_of(address)
        if client not in self._full_at_s and len(self._full_at_s) >= self._max_addresses:
            client = _OTHERS
        full_at_s = max(self._full_at_s.get(client, now_s), now_s) + self._each_s
        wait_s = full_at_s - now_s - _WINDOW_S
        if wait_s > 1e-6:  # of the size of rounding errors
            return wait_s
        self._full_at_s[client] = full_at_s
        self._full_at_s.move_to_end(client)
        return None

    def _forget_full(self, now_s: float) -> None:
        """A bucket that is full again is one that was never touched. The oldest stand first, and
        none of them stays for longer than the window."""
        while self._full_at_s:
            client, full_at_s = next(iter(self._full_at_s.items()))
            if full_at_s > now_s:
                return
            del self._full_at_s[client]


def _client_of(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return _OTHERS
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), 64), strict=False))
