"""Limits how often an address may send requests without a known key. Known keys always pass."""

from collections import OrderedDict
from ipaddress import IPv6Address, IPv6Network, ip_address

DEFAULT_PER_MINUTE = 30
MAX_ADDRESSES = 10_000
_WINDOW_S = 60.0
_OTHERS = ""
"""The shared count of all addresses beyond the maximum, and of texts that are no address."""


class FailureLimit:
    """A bucket of `per_minute` failures for each address, which refills evenly in a minute.

    At most `max_addresses` have a bucket of their own. This bounds memory, and the failures that
    pass in a minute. An IPv6 address counts as its /64, because one client gets a whole /64.
    """

    def __init__(
        self, per_minute: int = DEFAULT_PER_MINUTE, max_addresses: int = MAX_ADDRESSES
    ) -> None:
        self._each_s = _WINDOW_S / per_minute
        self._max_addresses = max_addresses
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """The number of buckets."""
        return len(self._full_at_s)

    def count(self, address: str, now_s: float) -> float | None:
        """Counts a failure. Returns None within the limit, else the seconds to the next free place.

        `now_s` comes from a clock that never steps back. A failure beyond the limit is not counted.
        """
        self._forget_full(now_s)
        client = _client_of(address)
        if client not in self._full_at_s and len(self._full_at_s) >= self._max_addresses:
            client = _OTHERS
        full_at_s = max(self._full_at_s.get(client, now_s), now_s) + self._each_s
        wait_s = full_at_s - now_s - _WINDOW_S
        if wait_s > 1e-6:  # larger than a rounding error
            return wait_s
        self._full_at_s[client] = full_at_s
        self._full_at_s.move_to_end(client)
        return None

    def _forget_full(self, now_s: float) -> None:
        """Removes full buckets: a full bucket is like a new one. The oldest come first, and none
        stays longer than the window."""
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
