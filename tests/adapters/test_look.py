"""How the reconciler finds pods, and how it names them in its requests."""

import json

import httpx

from headgate.adapters.reconcile.hosts import PodHosts
from headgate.adapters.reconcile.look import PodLooker
from tests.fakes import FakeClock

CARDS = [{"id": "tiny", "root": "/m", "parent": None}]


class Network:
    """Answers every pod's list, and notes the address and the `host` of each request."""

    def __init__(self) -> None:
        self.hosts = PodHosts()
        self.seen: list[tuple[str, str]] = []
        self.http = httpx.AsyncClient(
            transport=httpx.MockTransport(self._answer), event_hooks={"request": [self.hosts.name]}
        )

    def looker(self) -> PodLooker:
        return PodLooker(self.http, FakeClock(), self.hosts)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append((request.url.host, request.headers["host"]))
        return httpx.Response(200, text=json.dumps({"data": CARDS}))


async def test_a_request_goes_to_the_address_of_a_pod_and_names_its_service() -> None:
    network = Network()
    pods = await network.looker().look(["localhost:8000"])
    await network.http.put("http://127.0.0.1:9003/versions/acme-sql@1")

    assert "127.0.0.1:8000" in {pod.address for pod in pods}
    assert ("127.0.0.1", "localhost:8000") in network.seen
    assert network.seen[-1] == ("127.0.0.1", "localhost:9003")


async def test_a_pod_that_the_policy_names_by_its_address_keeps_it() -> None:
    network = Network()
    await network.looker().look(["127.0.0.9:8000", "[::1]:8000"])

    assert sorted(network.seen) == [("127.0.0.9", "127.0.0.9:8000"), ("::1", "[::1]:8000")]
