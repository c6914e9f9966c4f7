"""The commands of docs/one-box-operations.md show a dead vLLM as a page, without a past.

`make test-drills` runs this, as it needs Prometheus.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.box import started_up
from tests.docs.test_one_box_operations import commands
from tests.drills.monitoring import find_tools
from tests.patience import wait_until
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def make_monitoring(folder: Path, admin_url: str) -> Iterator[str]:
    """`make monitoring` beside this box; yields the address of its Prometheus."""
    (command,) = commands("A Prometheus in one command")
    address = f"127.0.0.1:{free_port()}"
    admin = admin_url.removeprefix("http://")
    words = [*command.split(), f"PROMETHEUS_ADDRESS={address}", f"ADMIN={admin}"]
    words += [f"HEADGATE_MONITORING={folder}", f"PROMETHEUS={find_tools().prometheus}"]
    with (folder / "make.log").open("w") as log:
        process = subprocess.Popen(words, cwd=ROOT, stderr=log, stdout=log, start_new_session=True)
    try:
        query = {"query": 'up{job="headgate"} == 1'}
        wait_until(lambda: found(f"http://{address}/api/v1/query", query), "the first scrape")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def filled(command: str, values: dict[str, str]) -> str:
    for word, value in values.items():
        command = command.replace(word, value)
    return command


def found(url: str, query: dict[str, str]) -> bool:
    try:
        answer = httpx.get(url, params=query).raise_for_status()
    except httpx.HTTPError:
        return False
    return bool(answer.json()["data"]["result"])


def test_a_dead_vllm_is_a_page_that_names_its_model(tmp_path: Path) -> None:
    with started_up(tmp_path, "--demo") as box, make_monitoring(tmp_path, box.admin_url) as address:
        pid = next(line for line in box.lines if "simulator, process" in line).split()[-1]
        key = next(line.split()[0] for line in box.lines if line.strip().startswith("sk-"))
        values = {
            "SIMULATOR": pid,
            "KEY": key,
            "http://127.0.0.1:8080": box.url,
            "127.0.0.1:9090": address,
        }
        for command in commands("Your first page"):
            done = subprocess.run(
                ["sh", "-c", filled(command, values)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )

    (page,) = [line for line in done.stdout.splitlines() if 'alertstate="firing"' in line]
    assert 'alertname="HeadgateUpstreamDead"' in page
    assert 'model="tiny"' in page
