"""The addresses of pods, where the policy names them by DNS: resolved in the background."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Self, TypeAlias

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.damping import DampedLog

log = logging.getLogger("headgate.placement")

LOOK_EVERY_S = 1.0
"""Kubernetes' DNS answers within milliseconds, with a time to live of 5 to 30 s for its own."""

WAIT_S = 2.0
"""So long a resolver that does not answer delays the start of the services."""

Named: TypeAlias = Callable[[], Iterable[str]]
"""The pods of the policy in force, each `IP:PORT` or `NAME:PORT`."""
Resolve: TypeAlias = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""The IP addresses of a name, for a port. Raises OSError if it has none."""


class PodNames:
    """The addresses of each name, as they were last resolved.

    As an asynchronous context it resolves them before they are asked for, and again every
    `LOOK_EVERY_S`. While a name does not resolve, its last addresses count: Envoy knows which of
    them are healthy.
    """

    def __init__(self, named: Named, clock: Clock, resolve: Resolve | None = None) -> None:
        self._named = named
        self._resolve = resolve or _resolve
        self._known: dict[str, tuple[str, ...]] = {}
        self._say = DampedLog(log, clock)
        self._task = BackgroundTask("names of pods", self.look, LOOK_EVERY_S, log)

    def addresses(self, pods: tuple[str, ...]) -> tuple[str, ...]:
        """The addresses of these pods, each once; none for a name that was never resolved."""
        found = (self._known.get(pod, (pod,) if is_address(pod) else ()) for pod in pods)
        return tuple(dict.fromkeys(address for each in found for address in each))

    async def look(self) -> None:
        """Resolves all names once. Forgets those that the policy has no longer."""
        names = {pod for pod in self._named() if not is_address(pod)}
        self._known = {name: each for name, each in self._known.items() if name in names}
        await asyncio.gather(*map(self._look_up, names))

    async def __aenter__(self) -> Self:
        await self.look()
        self._task.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._task.stop()

    async def _look_up(self, pod: str) -> None:
        host, _, port = pod.rpartition(":")
        try:
            async with asyncio.timeout(WAIT_S):
                found = await self._resolve(host, int(port))
        except OSError as error:
            self._say(logging.WARNING, pod, f"the pods {pod} do not resolve: {error}")
            return
        self._known[pod] = tuple(sorted(address_text(ip, int(port)) for ip in found))


def is_address(pod: str) -> bool:
    """Whether a pod is named by its IP address."""
    try:
        ip_address(pod.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def address_text(ip: str, port: int) -> str:
    """The address as Envoy writes it."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


async def _resolve(host: str, port: int) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple({str(address[0]) for *_, address in found})
