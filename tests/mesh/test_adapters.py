"""Adapters in a mesh with mTLS: Headgate reaches each pod by its Service, and nobody else does."""

import socket
from collections.abc import Iterator

import pytest

from headgate.adapters.plan.values import Spot
from headgate.adapters.reconcile.act import Copying
from tests.mesh.adapter_site import VERSION, Site, resolving, running_site
from tests.mesh.capture import captured_client
from tests.patience import wait_until

LOADS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
DENIED = "RBAC: access denied"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("adapters")) as running:
        yield running


@pytest.fixture
def dns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(site))


@pytest.mark.usefixtures("dns")
async def test_headgate_copies_loads_and_unloads_on_each_pod_by_the_name_of_their_service(
    site: Site,
) -> None:
    async with site.reconciler() as (looker, actions):
        seen = await looker.look(site.pool.pods)
        assert {pod.address for pod in seen} == {f"{pod.door_ip}:8000" for pod in site.pods}
        assert [pod.listed for pod in seen] == [{}, {}]

        for pod in site.pods:
            spot, root = Spot(f"{pod.door_ip}:8000", VERSION), f"{site.disk}/{VERSION}"
            while isinstance(await actions.copy(spot, "acme/sql-7", site.pool), Copying):
                pass
            await actions.load(spot, root)
            assert await actions.kept(spot.pod, site.pool) == [VERSION]
            own = next(one for one in await looker.look(site.pool.pods) if one.address == spot.pod)
            assert own.listed == {VERSION: root}
            await actions.unload(spot)
            await actions.remove(spot, site.pool)
            assert await actions.kept(spot.pod, site.pool) == []

    assert site.handshakes(8000) >= len(site.pods)
    assert site.handshakes(9003) >= len(site.pods)


async def test_a_call_that_names_no_service_is_in_clear_text_and_no_pod_takes_it(
    site: Site,
) -> None:
    async with captured_client(site.caller.ip) as http:
        answer = await http.get(f"http://{site.pods[0].door_ip}:8000/v1/models")

    assert answer.status_code in (502, 503)


@pytest.mark.parametrize("account", ["istio-ingress/default", "vllm/lora", "apps/nightly"])
@pytest.mark.parametrize("path", LOADS)
def test_no_other_workload_may_load_or_unload(site: Site, account: str, path: str) -> None:
    answer = site.ask(account, "POST", 8000, path)

    assert (answer.status_code, answer.text) == (403, DENIED)


@pytest.mark.parametrize(
    "account", ["istio-ingress/default", "vllm/lora", "monitoring/default", "headgate/default"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/versions"), ("PUT", f"/versions/{VERSION}")]
)
def test_no_other_workload_reaches_an_agent(
    site: Site, account: str, method: str, path: str
) -> None:
    answer = site.ask(account, method, 9003, path)

    assert (answer.status_code, answer.text) == (403, DENIED)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load%5Flora_adapter",
        "/v1/%6Coad_lora_adapter",
        "/v1/./load_lora_adapter",
        "/v1//load_lora_adapter",
        "/v1%2Fload_lora_adapter",
        "/v1/x/../load_lora_adapter",
        "/v1/load_lora_adapter/",
        "/v1/load_lora_adapter?x=1",
        "/V1/load_lora_adapter",
    ],
)
def test_no_other_spelling_of_the_path_loads(site: Site, path: str) -> None:
    """The proxy may let one pass, but no pod lists the adapter then."""
    answer = site.ask("istio-ingress/default", "POST", 8000, path)

    assert answer.status_code in (400, 403, 404, 307), answer.text
    listed = site.ask("istio-ingress/default", "GET", 8000, "/v1/models").json()["data"]
    assert [card["id"] for card in listed] == ["llama-8b"]


def test_the_accounts_of_headgate_and_of_the_gateway_are_admitted(site: Site) -> None:
    assert site.ask("headgate/headgate", "GET", 9003, "/versions").json() == {"versions": []}
    assert site.ask("headgate/headgate", "POST", 8000, LOADS[1]).status_code == 404  # vLLM's own
    assert site.ask("istio-ingress/default", "GET", 8000, "/v1/models").status_code == 200


def test_another_policy_cannot_open_the_paths(site: Site) -> None:
    """A DENY policy holds beside any ALLOW policy."""
    everybody = site.mesh.changed("AuthorizationPolicy", "adapters-by-headgate")
    everybody["metadata"]["name"] = "everybody"
    everybody["spec"]["rules"] = [{}]
    site.mesh.apply(everybody)

    wait_until(
        lambda: site.ask("apps/nightly", "GET", 8000, "/v1/models").status_code == 200,
        "the policy of somebody else",
    )
    assert site.ask("apps/nightly", "POST", 8000, LOADS[0]).status_code == 403
    assert site.ask("apps/nightly", "GET", 9003, "/versions").status_code == 403
