"""The answer cache and the versions of an adapter that is registered at run time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.envoy.adapter_fleet import Fleet, needs_adapters, running_fleet
from tests.envoy.test_cache import ask, caching, is_hit, kept, patient_store
from tests.patience import wait_until
from tests.redis_server import running_redis

pytestmark = needs_adapters
NAME = "acme-sql"
FORMS = (False, True)
"""A whole answer, and a stream."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    with running_redis() as redis:
        options = ("--cache-secret-file", str(secret), "--path", "standard")
        async with running_fleet(caching, *patient_store(redis), *options) as running:
            yield running


def give_to(fleet: Fleet, version: int) -> None:
    """All requests get this version; returns once they do."""
    weights = {"1": 0, "2": 0, str(version): 100}
    fleet.api.call("PATCH", f"/adapters/{NAME}", {"weights": weights})

    def is_asked() -> bool:
        answer = fleet.box.chat(model=NAME)
        record = fleet.box.record_of(answer.headers["x-request-id"])
        return bool(record["adapter"] == f"{NAME}@{version}")

    wait_until(is_asked, f"version {version}")


def test_each_version_of_an_adapter_has_answers_of_its_own(fleet: Fleet) -> None:
    """They are found again when an older version comes back. Streams are kept as whole answers."""
    box = fleet.box
    fleet.register(NAME, "b")
    first = {stream: kept(box, "which", model=NAME, stream=stream) for stream in FORMS}
    fleet.register(NAME, "c")
    give_to(fleet, 2)
    for stream in FORMS:
        second = kept(box, "which", model=NAME, stream=stream)
        assert second.content != first[stream].content
        hit = ask(box, "which", model=NAME, stream=stream)
        assert (is_hit(hit), hit.content) == (True, second.content)

    give_to(fleet, 1)
    for stream in FORMS:
        back = ask(box, "which", model=NAME, stream=stream)
        assert (is_hit(back), back.content) == (True, first[stream].content)
        record = box.record_of(back.headers["x-request-id"])
        assert (record["cache"], record["adapter"]) == ("hit", f"{NAME}@1")
