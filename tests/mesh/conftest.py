"""Tests on the real istiod: `make test-mesh`. Without it they are not collected."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.cluster import RunningMesh, running_mesh
from tests.mesh.policies import policy

LIMITS = """
      - {count: requests, limit: 1000000, per: day}
      - {count: tokens, limit: 500000000, per: day, each: user}
      - {count: concurrent, limit: 5000}
"""
collect_ignore_glob = [] if os.environ.get("HEADGATE_TEST_MESH") else ["test_*.py"]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh whose limits refuse nobody."""
    folder: Path = tmp_path_factory.mktemp("mesh")
    with running_mesh(folder, policy(LIMITS)) as running:
        yield running
