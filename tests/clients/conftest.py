"""A box whose users meet limits with waits of different lengths."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box import Box, policy, running_box
from tests.envoy.conftest import started_simulator

collect_ignore = [] if os.environ.get("HEADGATE_CLIENTS") else ["test_node.py"]
"""The Node clients come from npm: `make test-clients`."""
LIMITS = """
      - {count: requests, limit: 1, per: month, users: [alice]}
      - {count: requests, limit: 6, per: minute, smooth: true, burst: 1, users: [bob]}
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Alice has one request a month, and has used it. Bob has one in ten seconds."""
    with started_simulator("--model", "tiny", "--adapter", "lora-a") as upstream:
        folder: Path = tmp_path_factory.mktemp("clients")
        with running_box(folder, policy(upstream, limits=LIMITS)) as running:
            assert running.chat("alice").status_code == 200
            yield running
