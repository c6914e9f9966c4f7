"""Adapters at run time from the command line to vLLM, through Envoy, while streams run.

HEADGATE_TEST_UPSTREAM is the URL of a real vLLM with --max-loras 4 and --max-cpu-loras 8.
HEADGATE_TEST_ADAPTERS is then the folder with `base`, `lora-b` and `lora-c`.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from headgate.management.client import ApiClient
from tests.adapters.files import write_adapter, write_base
from tests.box import Box, environment, policy, running_box, small_chat
from tests.patience import PATIENCE_S, PATIENT_HEADGATE, wait_until
from tests.ports import free_port
from tests.postgres_server import temporary_folder
from tests.simulator_process import simulator_process

URL = os.environ.get("HEADGATE_TEST_UPSTREAM", "")
ADAPTERS = os.environ.get("HEADGATE_TEST_ADAPTERS", "")
STREAMS = 8
UNLOADED_S = 150
"""A version is unloaded a minute after its last use."""
POOL = """    adapter_pool:
      pods: ["{pod}"]
      live: 4
      listed: 8
      max_rank: 8
      trained_on: ["{base}"]
      folder: {folder}
      agent_port: {port}
"""

pytestmark = pytest.mark.skipif(
    bool(URL) and not ADAPTERS, reason="the real vLLM needs HEADGATE_TEST_ADAPTERS"
)


@dataclass
class Fleet:
    """A box, its management API, and its only pod."""

    box: Box
    api: ApiClient
    options: tuple[str, ...]
    pod: str

    def command(self, *words: str) -> dict[str, Any]:
        """The JSON of a command that succeeds."""
        command = [*PATIENT_HEADGATE, "adapters", *words, *self.options, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def register(self, name: str, source: str) -> None:
        """Returns once the newest version is loaded."""
        body = {"name": name, "tenant": "acme", "base": "tiny", "source": source}
        self.api.call("POST", "/adapters", body)

        def is_loaded() -> bool:
            versions = self.api.call("GET", f"/adapters/{name}")["versions"]
            return any(place["gets_requests"] for place in versions[-1]["places"])

        wait_until(is_loaded, f"the load of {name}")
        self.wait_served(name)

    def wait_served(self, name: str) -> None:
        """Replicas learn of a load within a second."""
        wait_until(lambda: self.box.chat(model=name).status_code == 200, f"answers of {name}")

    def models_of(self, user: str) -> set[str]:
        headers = self.box.headers(user)
        body = httpx.get(f"{self.box.url}/v1/models", headers=headers).json()
        return {entry["id"] for entry in body["data"]}


@pytest.fixture(params=HookPath)
async def fleet(request: pytest.FixtureRequest) -> Any:
    async with AsyncExitStack() as stack:
        tmp_path = stack.enter_context(temporary_folder())
        pod = URL or (await stack.enter_async_context(simulator_process("--adapter", "lora-a"))).url
        sources, folder, port = tmp_path / "sources", tmp_path / "pod", free_port()
        folder.mkdir()
        base, config = _sources(sources)
        pool = POOL.format(pod=pod.removeprefix("http://"), base=base, folder=folder, port=port)
        text = policy(pod).replace("    prices:", f"{pool}    prices:", 1)
        api, token = f"127.0.0.1:{free_port()}", tmp_path / "operator-token"
        options = ("--database-dir", str(tmp_path / "db"), "--path", request.param)
        options += ("--api", api, "--operator-token-file", str(token))
        agent = ("--listen", f"127.0.0.1:{port}", "--vllm", pod, "--sources", str(sources))
        agent += ("--folder", str(folder), "--base-config", str(config))
        stack.enter_context(_agent(*agent))
        box = stack.enter_context(running_box(tmp_path, text, *options))
        stack.callback(_unload, pod)  # the next test has other files
        options = ("--api", f"http://{api}", "--token-file", str(token))
        client = ApiClient(f"http://{api}", token.read_text().strip())
        stack.callback(client._http.close)
        yield Fleet(box, client, options, pod)


def _unload(pod: str) -> None:
    for version in _listed(pod):
        if "@" in version:
            httpx.post(f"{pod}/v1/unload_lora_adapter", json={"lora_name": version})


def _listed(pod: str) -> set[str]:
    cards = httpx.get(f"{pod}/v1/models").json()["data"]
    return {card["id"] for card in cards if card["parent"]}


def _sources(folder: Path) -> tuple[str, Path]:
    """Two adapters `b` and `c` below the folder: the name of their base, and its config.json."""
    if not ADAPTERS:
        for name in "bc":
            write_adapter(folder / name)
        return "org/tiny", write_base(folder)
    for name in "bc":
        shutil.copytree(Path(ADAPTERS) / f"lora-{name}", folder / name)
    config = json.loads((folder / "b" / "adapter_config.json").read_text())
    return config["base_model_name_or_path"], Path(ADAPTERS) / "base" / "config.json"


@contextmanager
def _agent(*options: str) -> Iterator[None]:
    command = [*PATIENT_HEADGATE, "adapters", "agent", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            assert "copies adapters" in process.stderr.readline()
            yield
        finally:
            process.terminate()


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
            wait_until(lambda: _served(box, "acme-sql") == "acme-sql@2", "the second version")
            fleet.api.call("POST", "/adapters/acme-sql/versions/1/withdraw")
            fleet.api.call("POST", "/adapters/acme-law/remove")
            wait_until(lambda: box.chat(model="acme-law").status_code == 404, "the end of acme-law")
            if URL:
                left = {"lora-a", "acme-sql@2"}
                wait_until(lambda: _listed(fleet.pod) == left, "the unload", UNLOADED_S)
            for one in (streams, adapted):
                wait_until(lambda one=one: one.whole >= STREAMS or one.failed, "a stream of each")
    assert (streams.failed, adapted.failed) == ([], [])
    record = box.record_of(first.headers["x-request-id"])
    assert (record["model"], record["base"]) == ("acme-sql", "tiny")
    assert record["adapter"] == "acme-sql@1"
    assert record["cost"] is not None


def _served(box: Box, model: str) -> str | None:
    answer = box.chat(model=model)
    assert answer.status_code == 200, answer.text
    adapter: str | None = box.record_of(answer.headers["x-request-id"])["adapter"]
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
    before = _listed(fleet.pod)
    body = {"lora_name": "acme-sql@1", "lora_path": "/etc", "name": "x", "source": "b"}
    address = fleet.box.url.removeprefix("http://")
    for method, path in product(("POST", "PUT", "DELETE"), ADMIN_PATHS):
        connection = HTTPConnection(address, timeout=PATIENCE_S)  # it leaves `..` as it is
        with closing(connection):
            headers = {**fleet.box.headers(), "content-type": "application/json"}
            connection.request(method, path, json.dumps(body), headers)
            assert connection.getresponse().status in (400, 404, 405), (method, path)
    assert _listed(fleet.pod) == before


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
