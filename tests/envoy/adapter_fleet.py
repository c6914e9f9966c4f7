"""A box with a pool of adapters, its agent and its only pod: a simulator, or a real vLLM.

HEADGATE_TEST_UPSTREAM is the URL of a real vLLM with --max-loras 4 and --max-cpu-loras 8.
HEADGATE_TEST_ADAPTERS is then the folder with `base`, `lora-b` and `lora-c`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.management.client import ApiClient
from tests.adapters.files import write_adapter, write_base
from tests.box import Box, environment, running_box
from tests.patience import PATIENT_HEADGATE, wait_until
from tests.ports import free_port
from tests.postgres_server import temporary_folder
from tests.simulator_process import simulator_process

URL = os.environ.get("HEADGATE_TEST_UPSTREAM", "")
ADAPTERS = os.environ.get("HEADGATE_TEST_ADAPTERS", "")
POOL = """    adapter_pool:
      pods: ["{pod}"]
      live: 4
      listed: 8
      max_rank: 8
      trained_on: ["{base}"]
      folder: {folder}
      agent_port: {port}
"""

needs_adapters = pytest.mark.skipif(
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


@asynccontextmanager
async def running_fleet(text_of: Callable[[str], str], *options: str) -> AsyncIterator[Fleet]:
    """A fleet whose box has these options. `text_of` is its policy by the URL of the pod."""
    async with AsyncExitStack() as stack:
        tmp_path = stack.enter_context(temporary_folder())
        pod = URL or (await stack.enter_async_context(simulator_process("--adapter", "lora-a"))).url
        sources, folder, port = tmp_path / "sources", tmp_path / "pod", free_port()
        folder.mkdir()
        base, config = _sources(sources)
        pool = POOL.format(pod=pod.removeprefix("http://"), base=base, folder=folder, port=port)
        text = text_of(pod).replace("    prices:", f"{pool}    prices:", 1)
        api, token = f"127.0.0.1:{free_port()}", tmp_path / "operator-token"
        database = ("--database-dir", str(tmp_path / "db"))
        management = ("--api", api, "--operator-token-file", str(token))
        agent = ("--listen", f"127.0.0.1:{port}", "--vllm", pod, "--sources", str(sources))
        agent += ("--folder", str(folder), "--base-config", str(config))
        stack.enter_context(_agent(*agent))
        box = stack.enter_context(running_box(tmp_path, text, *database, *management, *options))
        stack.callback(_unload, pod)  # the next test has other files
        client = ApiClient(f"http://{api}", token.read_text().strip())
        stack.callback(client._http.close)
        yield Fleet(box, client, ("--api", f"http://{api}", "--token-file", str(token)), pod)


def _unload(pod: str) -> None:
    for version in listed(pod):
        if "@" in version:
            httpx.post(f"{pod}/v1/unload_lora_adapter", json={"lora_name": version})


def listed(pod: str) -> set[str]:
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
