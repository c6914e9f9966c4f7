"""A real Envoy in front of the simulator, or of the vLLM that HEADGATE_TEST_UPSTREAM names."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headgate.core.contract import Counting
from tests.box import Box, environment, policy, running_box
from tests.patience import PATIENCE_S

LIMITS = """
      - {count: requests, limit: 100000, per: minute}
      - {count: tokens, limit: 50000000, per: day, each: user}
      - {count: concurrent, limit: 5000}
"""


@dataclass(frozen=True)
class Upstream:
    """The server behind Envoy, and its own count of tokens."""

    url: str
    real: bool

    def counters(self) -> dict[str, int]:
        """vLLM's counters of prompt and generated tokens, summed over its labels."""
        sums = {"prompt": 0.0, "generation": 0.0}
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            for kind in sums:
                if line.startswith(f"vllm:{kind}_tokens_total"):
                    sums[kind] += float(line.rpartition(" ")[2])
        return {kind: int(value) for kind, value in sums.items()}


@contextmanager
def started_simulator(*arguments: str) -> Iterator[str]:
    """A simulator on a free port: its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate.simulator", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("simulator ready on "), ready
        yield ready.split()[-1]
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        process.stdout.close()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The upstream of every box of this session."""
    url = os.environ.get("HEADGATE_TEST_UPSTREAM")
    if url:
        yield Upstream(url, real=True)
        return
    arguments = ["--model", "tiny", "--adapter", "lora-a", "--prompt-tokens-details"]
    arguments += ["--per-request-metrics"]
    arguments += ["--ttft-s", "0.01", "--token-interval-s", "0.005"]
    with started_simulator(*arguments) as simulated:
        yield Upstream(simulated, real=False)


@pytest.fixture(scope="module")
def box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with generous limits: nobody is refused for them."""
    folder: Path = tmp_path_factory.mktemp("box")
    with running_box(folder, policy(upstream.url, limits=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module", params=Counting)
def counted_box(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """The same box, and one whose answers are counted in ext_proc."""
    if request.param is Counting.PROXY:
        yield request.getfixturevalue("box")
        return
    folder: Path = tmp_path_factory.mktemp("box-counted")
    text = policy(upstream.url, limits=LIMITS)
    with running_box(folder, text, "--counting", request.param) as running:
        yield running


@pytest.fixture(scope="module")
def box_forced(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose policy says that vLLM forces usage: no body is rewritten for it."""
    folder: Path = tmp_path_factory.mktemp("box-forced")
    text = policy(upstream.url, forces_usage=True, limits=LIMITS)
    with running_box(folder, text) as running:
        yield running
