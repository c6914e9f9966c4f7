"""The name of each pod in a mesh: that of the headless Service by which its address was found.

A sidecar finds a Service by the `host` of a request, and then goes to the pod's address over mTLS.
To a bare address it speaks clear text, which pods of a mesh refuse.
"""

import httpx


class PodHosts:
    """Names pods in the requests of an HTTP client."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def learn(self, ip: str, name: str) -> None:
        """Notes the name by which an address was found, or the address itself."""
        self._names[ip] = name

    async def name(self, request: httpx.Request) -> None:
        """Puts the pod's name into the `host` of a request to its address: a hook of httpx."""
        known = self._names.get(request.url.host)
        if known is not None:
            request.headers["host"] = f"{known}:{request.url.port}"
