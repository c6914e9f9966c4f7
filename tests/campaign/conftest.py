"""One fleet for the whole campaign: each fault has users, and so counters, of its own."""

from collections.abc import Iterator

import pytest

from tests.campaign.site import Site, running_site
from tests.envoy.conftest import Upstream, upstream

__all__ = ["site", "upstream"]

USERS = [
    "paused",
    "slow",
    "flushed",
    "replica-killed",
    "envoy-killed",
    "kept",
    "emptied",
    "failed-over",
    "differ",
    "step",
]


@pytest.fixture(scope="module")
def site(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), upstream.url, USERS) as running:
        yield running
