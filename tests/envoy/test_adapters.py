"""Adapters at run time from the command line to vLLM, through Envoy, while streams run."""

import json
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import product

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import Box, policy, small_chat
from tests.envoy.adapter_fleet import URL, Fleet, listed, needs_adapters, running_fleet
from tests.patience import PATIENCE_S, wait_until

STREAMS = 8
UNLOADED_S = 150
"""A version is unloaded a minute after its last use."""

pytestmark = needs_adapters


@pytest.fixture(params=HookPath)
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    async with running_fleet(policy, "--path", request.param) as running:
        yield running


@dataclass
class Streams:
    """Clients that ask for one stream after the other. `failed` says what went wrong."""

    box: Box
    model: str
    whole: int = 0
    failed: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Streams":
        self._threads = [threading.Thread(target=self._ask) for _ in range(STREAMS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _ask(self) -> None:
        more = {"max_tokens": 100, "stream": True, "ignore_eos": True}
        body = {**small_chat(), **more, "model": self.model}
        with httpx.Client(timeout=PATIENCE_S, headers=self.box.headers()) as http:
            while not self._end.is_set():
                url = f"{self.box.url}/v1/chat/completions"
                try:
                    with http.stream("POST", url, json=body) as answer:
                        text = answer.read().decode()
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code == 200 and text.rstrip().endswith("data: [DONE]"):
                    self.whole += 1
                else:
                    self.failed.append(f"{answer.status_code} {text[-300:]}")


def test_adapters_come_change_and_go_while_streams_run(fleet: Fleet) -> None:
    """Eight streams of the base model, and eight of the adapter that changes."""
    box = fleet.box
    with Streams(box, "tiny") as streams:
        words = ("--tenant", "acme", "--base", "tiny", "--source", "b")
        fleet.command("register", "acme-sql", *words, "--wait-s", str(PATIENCE_S))
        fleet.register("acme-law", "c")
        fleet.wait_served("acme-sql")
        with Streams(box, "acme-sql") as adapted:
            first = box.chat(model="acme-sql")
            assert (first.status_code, first.json()["model"]) == (200, "acme-sql"), first.text
            assert box.chat(model="acme-law").status_code == 200
            fleet.register("acme-sql", "c")
            fleet.api.call("PATCH", "/adapters/acme-sql", {"weights": {"2": 100}})
            wait_until(lambda: _served(fleet, "acme-sql") == "acme-sql@2", "the second version")
            fleet.api.call("POST", "/adapters/acme-sql/versions/1/withdraw")
            fleet.api.call("POST", "/adapters/acme-law/remove")
            wait_until(lambda: box.chat(model="acme-law").status_code == 404, "the end of acme-law")
            if URL:
                left = {"lora-a", "acme-sql@2"}
                wait_until(lambda: listed(fleet.pod) == left, "the unload", UNLOADED_S)
            for one in (streams, adapted):
                wait_until(lambda one=one: one.whole >= STREAMS or one.failed, "a stream of each")
    assert (streams.failed, adapted.failed) == ([], [])
    record = box.record_of(first.headers["x-request-id"])
    assert (record["model"], record["base"]) == ("acme-sql", "tiny")
    assert record["adapter"] == "acme-sql@1"
    assert record["cost"] is not None


def _served(fleet: Fleet, model: str) -> str | None:
    """The version that answers now."""
    answer = fleet.box.chat(model=model)
    assert answer.status_code == 200, (answer.text, fleet.api.call("GET", f"/adapters/{model}"))
    adapter: str | None = fleet.box.record_of(answer.headers["x-request-id"])["adapter"]
    return adapter


def test_another_tenant_sees_no_trace_of_an_adapter(fleet: Fleet) -> None:
    box = fleet.box
    fleet.register("acme-sql", "b")
    wait_until(lambda: "acme-sql" in fleet.models_of("alice"), "the list of its owner")
    assert "acme-sql" not in fleet.models_of("carol")

    def refused(model: str) -> tuple[int, str]:
        answer = box.chat("carol", model=model)
        error = answer.json()["error"]
        return answer.status_code, error["message"].replace(model, "NAME")

    names = ("acme-sql", "no-such", "../acme-sql", "acme-sql@1")
    assert {refused(name) for name in names} == {refused("never")}
    forged = {"x-headgate-lora": "acme-sql@1", "x-headgate-tenant": "acme"}
    headers = {**box.headers("carol"), **forged}
    body = {**small_chat(), "model": "private"}
    answer = httpx.post(f"{box.url}/v1/chat/completions", json=body, headers=headers)
    assert (answer.status_code, answer.json()["model"]) == (200, "private")
    record = box.record_of(answer.headers["x-request-id"])
    assert (record["tenant"], record["adapter"]) == ("globex", "lora-a")


ADMIN_PATHS = (
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/load_lora_adapter/",
    "//v1/load_lora_adapter",
    "/v1/../v1/load_lora_adapter",
    "/v1/%6Coad_lora_adapter",
    "/v1/load_lora_adapter?x=/v1/models",
    "/v1/models/../load_lora_adapter",
    "/adapters",
    "/versions/acme-sql@1",
    "/api/v1/adapters",
)


def test_what_loads_adapters_is_not_behind_the_door(fleet: Fleet) -> None:
    """The paths of vLLM, of the agent and of the management API."""
    fleet.register("acme-sql", "b")
    before = listed(fleet.pod)
    body = {"lora_name": "acme-sql@1", "lora_path": "/etc", "name": "x", "source": "b"}
    address = fleet.box.url.removeprefix("http://")
    for method, path in product(("POST", "PUT", "DELETE"), ADMIN_PATHS):
        connection = HTTPConnection(address, timeout=PATIENCE_S)  # it leaves `..` as it is
        with closing(connection):
            headers = {**fleet.box.headers(), "content-type": "application/json"}
            connection.request(method, path, json.dumps(body), headers)
            assert connection.getresponse().status in (400, 404, 405), (method, path)
    assert listed(fleet.pod) == before


def test_a_request_for_what_is_not_loaded_gets_503_at_once(fleet: Fleet) -> None:
    """Its files do not fit, so that it is never loaded."""
    box = fleet.box
    (box.folder / "sources" / "b" / "adapter_config.json").write_text("{}")
    body = {"name": "acme-sql", "tenant": "acme", "base": "tiny", "source": "b"}
    fleet.api.call("POST", "/adapters", body)
    answer = wait_until(lambda: _unless_404(box.chat(model="acme-sql")), "the registration")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "model_not_loaded"


def _unless_404(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 404 else answer
