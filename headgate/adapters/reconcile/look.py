"""Looks at the pods of a base model: their addresses, and the adapters that each lists."""

import asyncio
import socket
from collections.abc import Sequence

import httpx

from headgate.adapters.plan.values import GONE_S, SeenPod
from headgate.core.clock import Clock

LOOK_S = 2.0
"""The longest time for the list of a pod."""


class PodLooker:
    """Asks every pod for its list. It remembers since when a pod has not answered."""

    def __init__(self, http: httpx.AsyncClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._named_s: dict[str, float] = {}
        self._answered_s: dict[str, float] = {}

    async def look(self, pods: Sequence[str]) -> tuple[SeenPod, ...]:
        """The pods behind these `host:port`, each with what it lists.

        A pod that has lost its name counts for `GONE_S` more: a restart takes it away, too.
        """
        now_s = self._clock.monotonic_s()
        found = await asyncio.gather(*map(_addresses, pods))
        named = {address for addresses in found for address in addresses}
        self._named_s |= dict.fromkeys(named, now_s)
        self._named_s = {one: at_s for one, at_s in self._named_s.items() if now_s - at_s < GONE_S}
        return tuple(await asyncio.gather(*(self._seen(one) for one in sorted(self._named_s))))

    async def _seen(self, address: str) -> SeenPod:
        listed = await self._listed(address)
        now_s = self._clock.monotonic_s()
        last_s = self._answered_s.setdefault(address, now_s)
        if listed is None:
            return SeenPod(address=address, listed=None, silent_s=now_s - last_s)
        self._answered_s[address] = now_s
        return SeenPod(address=address, listed=listed)

    async def _listed(self, address: str) -> dict[str, str] | None:
        """The root of each adapter by its name; None if the pod does not say it."""
        try:
            answer = await self._http.get(f"http://{address}/v1/models", timeout=LOOK_S)
            if answer.status_code != httpx.codes.OK:
                return None
            cards = answer.json()["data"]
            return {str(card["id"]): str(card["root"]) for card in cards if card["parent"]}
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return None


async def _addresses(pod: str) -> set[str]:
    """The addresses of a name with its port; none while it cannot be resolved."""
    host, _, port = pod.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return set()
    hosts = {str(address[0]) for *_, address in found}
    return {f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts}
