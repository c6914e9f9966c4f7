"""The calls to Envoy's admin interface, over its unix socket."""

from collections.abc import Sequence
from pathlib import Path

import httpx


class EnvoyAdmin:
    """A client of one Envoy's admin. Every call may raise httpx.HTTPError if Envoy is gone."""

    def __init__(self, socket: Path, timeout_s: float = 2.0) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url="http://envoy",
            timeout=timeout_s,
        )

    async def ready(self) -> bool:
        """Whether Envoy has read all its configuration and accepts requests."""
        answer = await self._client.get("/ready")
        return answer.status_code == httpx.codes.OK

    async def numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The values of these counters and gauges; 0 for a name that does not exist (yet)."""
        pattern = "^(" + "|".join(name.replace(".", r"\.") for name in names) + ")$"
        answer = await self._client.get("/stats", params={"filter": pattern})
        answer.raise_for_status()
        lines = (line.rpartition(": ") for line in answer.text.splitlines())
        values = {name: int(value) for name, _, value in lines if value.isdigit()}
        return {name: values.get(name, 0) for name in names}

    async def prometheus(self) -> str:
        """Envoy's own statistics as Prometheus reads them."""
        answer = await self._client.get("/stats/prometheus")
        answer.raise_for_status()
        return answer.text

    async def stop_listening(self) -> None:
        """Closes the listening sockets at once; requests in flight continue.

        Open connections end with their next answer (`connection: close`, or GOAWAY).
        """
        (await self._client.post("/healthcheck/fail")).raise_for_status()
        (await self._client.post("/drain_listeners")).raise_for_status()

    async def close(self) -> None:
        await self._client.aclose()
