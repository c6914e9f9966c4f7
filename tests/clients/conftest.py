"""Boxes whose users meet limits with waits of different lengths, or a model that never answers."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headgate.core.contract import Counting
from tests.box import Box, policy, running_box, started_up
from tests.envoy.conftest import started_simulator

collect_ignore = [] if os.environ.get("HEADGATE_CLIENTS") else ["test_node.py"]
"""The Node clients come from npm: `make test-clients`."""
LIMITS = """
      - {count: requests, limit: 1, per: month, users: [alice]}
      - {count: requests, limit: 6, per: minute, smooth: true, burst: 1, users: [bob]}
"""
_IMPATIENT = """
from datetime import timedelta
from unittest.mock import patch
from headgate import cli
from tests.patience import patient

with patient(), patch("headgate.dataplane.listener.STREAM_IDLE_TIMEOUT", timedelta(seconds=5)):
    cli.main()
"""
"""Headgate with an Envoy that waits 5 s for an answer, in place of ten minutes."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Alice has one request a month, and has used it. Bob has one in ten seconds."""
    with started_simulator("--model", "tiny", "--adapter", "lora-a") as upstream:
        folder: Path = tmp_path_factory.mktemp("clients")
        with running_box(folder, policy(upstream, limits=LIMITS)) as running:
            assert running.chat("alice").status_code == 200
            yield running


@pytest.fixture(scope="module", params=Counting)
def slow_box(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """Its model never answers, and its Envoy waits 5 s."""
    folder: Path = tmp_path_factory.mktemp("slow")
    with started_simulator("--model", "tiny", "--adapter", "lora-a") as upstream:
        httpx.post(f"{upstream}/simulate", json={"headers_delay": 3600}).raise_for_status()
        limits = "[{count: tokens, limit: 100000, per: year, each: user}]"
        (folder / "headgate.yaml").write_text(policy(upstream, limits=limits))
        options = ["--policy", str(folder / "headgate.yaml"), "--counting", request.param]
        program = (sys.executable, "-c", _IMPATIENT)
        with started_up(folder, *options, program=program) as running:
            yield running
