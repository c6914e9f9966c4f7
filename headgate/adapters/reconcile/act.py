"""Carries out one action on one pod: a copy by its agent, a load or an unload by its vLLM."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from headgate.adapters.plan.values import Spot
from headgate.core.adapter_pools import AdapterPool

ACT_S = 120.0
"""The longest time for a load."""
ASK_S = 10.0
_ERRORS_FOR_GOOD = frozenset({404, 500})
"""vLLM's statuses of a load that fails again: no such folder, and weights that it cannot take."""


class ActError(Exception):
    """An action that failed. `is_permanent` says that it would fail again."""

    def __init__(self, problem: str, *, is_permanent: bool = False) -> None:
        super().__init__(problem)
        self.is_permanent = is_permanent


@dataclass(frozen=True, slots=True)
class Copying:
    """The agent still copies: these bytes of these."""

    copied_bytes: int
    size_bytes: int


class PodActions:
    """Calls vLLM and the agent of a pod. Each method raises ActError with the pod's own words."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def copy(self, spot: Spot, source: str, pool: AdapterPool) -> Copying | None:
        """Has the files of the version copied and checked; None once they are ready."""
        host = spot.pod.rpartition(":")[0]
        url = f"http://{host}:{pool.agent_port}/versions/{spot.version}"
        body = {
            "source": source,
            "max_rank": pool.max_rank,
            "trained_on": list(pool.trained_on),
        }
        answer = await self._send("PUT", url, body, ASK_S)
        if answer.status_code == httpx.codes.ACCEPTED:
            progress = answer.json()
            return Copying(progress["copied_bytes"], progress["size_bytes"])
        if answer.status_code == httpx.codes.OK:
            return None
        is_permanent = answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        raise ActError(f"agent: {_problem(answer)}", is_permanent=is_permanent)

    async def load(self, spot: Spot, root: str) -> None:
        """Has vLLM load the version from this folder."""
        body = {"lora_name": spot.version, "lora_path": root}
        url = f"http://{spot.pod}/v1/load_lora_adapter"
        answer = await self._send("POST", url, body, ACT_S)
        if answer.status_code != httpx.codes.OK:
            is_permanent = answer.status_code in _ERRORS_FOR_GOOD
            raise ActError(f"vLLM: {_problem(answer)}", is_permanent=is_permanent)

    async def unload(self, spot: Spot) -> None:
        """Has vLLM forget the version. One that it does not know is unloaded."""
        body = {"lora_name": spot.version}
        url = f"http://{spot.pod}/v1/unload_lora_adapter"
        answer = await self._send("POST", url, body, ASK_S)
        if answer.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            raise ActError(f"vLLM: {_problem(answer)}")

    async def kept(self, pod: str, pool: AdapterPool) -> list[str]:
        """The versions whose files the agent has."""
        host = pod.rpartition(":")[0]
        answer = await self._send("GET", f"http://{host}:{pool.agent_port}/versions", None, ASK_S)
        try:
            return [str(one) for one in answer.json()["versions"]]
        except (ValueError, LookupError, TypeError):
            raise ActError(f"agent: {_problem(answer)}") from None

    async def remove(self, spot: Spot, pool: AdapterPool) -> None:
        """Has the agent delete the files of the version; it refuses while they may be read."""
        host = spot.pod.rpartition(":")[0]
        url = f"http://{host}:{pool.agent_port}/versions/{spot.version}"
        answer = await self._send("DELETE", url, None, ASK_S)
        if answer.status_code not in (httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND):
            raise ActError(f"agent: {_problem(answer)}")

    async def _send(
        self, method: str, url: str, body: Mapping[str, object] | None, timeout_s: float
    ) -> httpx.Response:
        try:
            return await self._http.request(method, url, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise ActError(f"{url} does not answer ({error or type(error).__name__})") from None


def _problem(answer: httpx.Response) -> str:
    """The error's own text, of vLLM or of the agent, cut to a line of the database."""
    try:
        body = answer.json()
        error = body.get("error")
        text = error["message"] if isinstance(error, dict) else error or body["detail"]
    except (ValueError, LookupError, TypeError, AttributeError):
        text = answer.text
    return f"{answer.status_code} {str(text)[:1000]}"
