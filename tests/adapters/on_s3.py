"""The agent and a real S3 server, VersityGW, which checks each signature.

`make test-s3` builds it with Go. HEADGATE_S3_SERVER is its path.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.store import S3Store

from headgate.adapters.source import read_place
from headgate.program.adapter_agent import AgentSettings, running_agent
from headgate.program.settings import Address
from tests.adapters.files import write_adapter, write_base
from tests.patience import wait_until
from tests.ports import free_port

SERVER = os.environ["HEADGATE_S3_SERVER"]
USER, SECRET, REGION = "reader", "reader-secret", "eu-central-1"
ORDER = {"source": "s3://adapters/acme/sql", "max_rank": 8, "trained_on": ["org/tiny"]}


@dataclass(frozen=True)
class Pod:
    """The agent's settings, and the files of the adapter in the bucket."""

    settings: AgentSettings
    files: dict[str, bytes]

    async def put(self, **changes: str) -> httpx.Response:
        """The agent's answer to an order for this adapter."""
        async with running_agent(self.settings) as url, httpx.AsyncClient(base_url=url) as http:
            return await http.put("/versions/sql@1", json={**ORDER, **changes})


@pytest.fixture
def store_url(tmp_path: Path) -> Iterator[str]:
    """An empty store with this user."""
    folder, address = tmp_path / "store", f"127.0.0.1:{free_port()}"
    (folder / "adapters").mkdir(parents=True)
    options = ("--port", address, "--access", USER, "--secret", SECRET, "--region", REGION)
    with subprocess.Popen(
        [SERVER, *options, "--quiet", "posix", "--nometa", str(folder)]
    ) as process:
        try:
            wait_until(lambda: _answers(f"http://{address}"), "the store")
            yield f"http://{address}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.FORBIDDEN  # without a signature
    except httpx.HTTPError:
        return False


@pytest.fixture
def pod(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    values = {"ACCESS_KEY_ID": USER, "SECRET_ACCESS_KEY": SECRET, "REGION": REGION}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    store = S3Store("adapters", endpoint=store_url, client_options={"allow_http": True})
    adapter = write_adapter(tmp_path / "sql")
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    for name, data in files.items():
        obstore.put(store, f"acme/sql/{name}", data)
    (tmp_path / "pod").mkdir()
    settings = AgentSettings(
        address=Address("127.0.0.1", 0),
        vllm="http://127.0.0.1:9",
        folder=tmp_path / "pod",
        base_config=write_base(tmp_path),
        buckets=(read_place("s3://adapters/acme"),),
        s3_endpoint=store_url,
    )
    return Pod(settings, files)


async def test_the_agent_copies_an_adapter_from_a_real_store(pod: Pod) -> None:
    answer = await pod.put()
    assert (answer.status_code, answer.json()) == (200, {"state": "ready"})
    copied = pod.settings.folder / "sql@1"
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == pod.files


async def test_a_missing_adapter_is_told_as_missing(pod: Pod) -> None:
    answer = await pod.put(source="s3://adapters/acme/law")
    assert answer.status_code == 422
    assert answer.json()["error"] == "there is no s3://adapters/acme/law/adapter_config.json"


async def test_a_wrong_secret_is_told_and_may_be_mended(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    answer = await pod.put()
    assert answer.status_code == 503
    assert answer.json()["error"].endswith("adapter_config.json: the store answers 403")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert (await pod.put()).status_code == 200
