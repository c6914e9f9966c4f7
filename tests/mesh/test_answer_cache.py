"""The answer cache in a mesh: both replicas answer from one Redis, and each hit is metered once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import metric
from tests.mesh.cluster import RunningMesh, running_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.policies import MODEL, policy
from tests.mesh.traffic import served
from tests.patience import wait_until

CACHED_PRICE = 100
"""Of a million tokens, so that no other price gives the same cost."""


def text() -> str:
    cached = "    answer_cache: {}\n    prices: {cached_answer: " + f"{CACHED_PRICE}, "
    whole = policy(LIMITS, MODEL.replace("    prices: {", cached))
    return whole.replace("  acme:\n", "  acme:\n    answer_cache: {}\n")


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder: Path = tmp_path_factory.mktemp("caching")
    secret = folder / "secret"
    secret.write_text("0123456789abcdef" * 4)
    extra = {"headgate": [f"--cache-secret-file={secret}"]}
    with running_mesh(folder, text(), extra) as running:
        yield running


def total(mesh: RunningMesh, name: str) -> list[float]:
    """The value of a metric at each replica."""
    pods = mesh.pods_named("headgate")
    return [metric(httpx.get(f"http://{pod.ip}:9002/metrics").text, name) for pod in pods]


def ask(mesh: RunningMesh, text: str, user: str = "alice", **fields: Any) -> httpx.Response:
    return mesh.chat(user, messages=[{"role": "user", "content": text}], **fields)


def kept(mesh: RunningMesh, text: str, **fields: Any) -> httpx.Response:
    """The first answer to a request, once it is in the cache."""
    stored = 'headgate_cache_answers_total{outcome="stored"}'
    before = sum(total(mesh, stored))
    answer = ask(mesh, text, **fields)
    assert answer.headers["x-headgate-cache"] == "miss", answer.text
    wait_until(lambda: sum(total(mesh, stored)) > before, "the answer to be kept")
    return answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_both_replicas_repeat_an_answer_and_no_pod_is_asked(
    caching: RunningMesh, stream: bool
) -> None:
    first = kept(caching, f"stream: {stream}", stream=stream)
    before = served(caching)
    hits = 'headgate_cache_lookups_total{outcome="hit"}'
    at_first = total(caching, hits)

    def is_repeated_by_both() -> bool:
        answer = ask(caching, f"stream: {stream}", "bob", stream=stream)
        assert answer.headers["x-headgate-cache"] == "hit"
        assert answer.content == first.content
        return all(now > then for now, then in zip(total(caching, hits), at_first, strict=True))

    wait_until(is_repeated_by_both, "a hit of each replica")
    assert served(caching) == before


def test_a_hit_is_limited_and_metered_once(caching: RunningMesh) -> None:
    first = kept(caching, "metered")
    left = "x-ratelimit-remaining-requests"
    hit = ask(caching, "metered")
    again = ask(caching, "metered")
    records = [caching.record_of(each.headers["x-request-id"]) for each in (hit, again)]
    tokens = first.json()["usage"]["total_tokens"]

    assert int(again.headers[left]) == int(hit.headers[left]) - 1
    assert [record["cache"] for record in records] == ["hit", "hit"]
    assert [record["pod"] for record in records] == [None, None]
    assert {round(record["cost"] * 1_000_000) for record in records} == {tokens * CACHED_PRICE}
    ids = [record["request_id"] for record in caching.records()]
    assert len(ids) == len(set(ids))


def test_a_request_that_may_differ_is_not_looked_up(caching: RunningMesh) -> None:
    answer = ask(caching, "hot", temperature=1)

    assert "x-headgate-cache" not in answer.headers
