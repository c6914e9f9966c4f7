"""The answer cache while a part of it is away, through a real Envoy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import metric
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, fleet_to_start, request
from tests.envoy.test_cache import ask, caching, is_hit, kept, running
from tests.redis_server import running_redis

ABSENT = 'headgate_cache_lookups_total{outcome="absent"}'


def test_without_redis_every_request_goes_to_the_model(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = 'headgate_cache_lookups_total{outcome="away"}'
    with (
        running_redis() as own,
        running(tmp_path_factory.mktemp("box-cache-away"), upstream.url, own) as box,
    ):
        kept(box, "away", user="dave")
        own.stop()
        answers = [ask(box, "away", user="dave") for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200] * 3
        assert not any(map(is_hit, answers))
        assert metric(box.metrics(), away) == 3


@pytest.fixture
def fleet(upstream: Upstream, tmp_path: Path) -> Iterator[Fleet]:
    text = caching(upstream.url)
    path = HookPath.STANDARD
    with fleet_to_start(tmp_path, text, upstream.url, 1, path=path) as started:
        (tmp_path / "secret").write_text("0123456789abcdef" * 4)
        started.options = ["--cache-secret-file", "secret"]
        started.start_services()
        started.start_envoy()
        yield started


def test_a_service_that_dies_while_it_records_breaks_the_answer_and_leaves_none(
    fleet: Fleet,
) -> None:
    asked: dict[str, Any] = request(temperature=0, max_tokens=400, stream=True)
    url = f"{fleet.url}/v1/chat/completions"
    with httpx.stream("POST", url, **asked) as answer:
        pieces = answer.iter_bytes()
        got = [next(pieces)]
        assert answer.headers["x-headgate-cache"] == "miss"
        fleet.kill("services")
        with pytest.raises(httpx.RemoteProtocolError):
            got.extend(pieces)
    assert b"[DONE]" not in b"".join(got)
    assert not fleet.redis.client().keys("hg:cache:*")

    fleet.start_services()
    fresh = httpx.post(url, **asked)
    assert fresh.headers["x-headgate-cache"] == "miss"
    assert b"[DONE]" in fresh.content
    assert metric(fleet.metrics(), ABSENT) == 1
