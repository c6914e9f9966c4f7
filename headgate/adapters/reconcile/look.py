"""Looks at the pods of a base model: their addresses, and the adapters that each lists."""

import asyncio
import socket
from collections.abc import Sequence

import httpx

from headgate.adapters.plan.values import GONE_S, LATE_S, SeenPod
from headgate.adapters.reconcile.hosts import PodHosts
from headgate.core.clock import Clock

LOOK_S = 2.0
"""The longest time for the list of a pod."""


class PodLooker:
    """Asks every pod of a base model for its list.

    It remembers since when a pod has not answered. `hosts` learns by which names pods are found.
    """

    def __init__(self, http: httpx.AsyncClient, clock: Clock, hosts: PodHosts) -> None:
        self._http = http
        self._clock = clock
        self._hosts = hosts
        self._named_s: dict[str, float] = {}
        self._answered_s: dict[str, float] = {}
        self._said: dict[str, dict[str, str]] = {}

    async def look(self, pods: Sequence[str]) -> tuple[SeenPod, ...]:
        """The pods behind these `host:port`, each with what it lists.

        A pod that has lost its name counts for `GONE_S` more: a restart takes it away, too.
        """
        now_s = self._clock.monotonic_s()
        found = await asyncio.gather(*map(self._addresses, pods))
        named = {address for addresses in found for address in addresses}
        self._named_s |= dict.fromkeys(named, now_s)
        self._named_s = {one: at_s for one, at_s in self._named_s.items() if now_s - at_s < GONE_S}
        return tuple(await asyncio.gather(*(self._seen(one) for one in sorted(self._named_s))))

    async def _seen(self, address: str) -> SeenPod:
        listed = await self._listed(address)
        now_s = self._clock.monotonic_s()
        last_s = self._answered_s.setdefault(address, now_s)
        if listed is None:
            silent_s = now_s - last_s
            known = self._said.get(address) if silent_s < LATE_S else None
            return SeenPod(address=address, listed=known, silent_s=max(silent_s, LOOK_S))
        self._answered_s[address] = now_s
        self._said[address] = listed
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

    async def _addresses(self, pod: str) -> set[str]:
        """The addresses of a name with its port; none while it cannot be resolved."""
        host, _, port = pod.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError:
            return set()
        ips = {str(address[0]) for *_, address in found}
        for ip in ips:
            self._hosts.learn(ip, host)
        return {f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in ips}
