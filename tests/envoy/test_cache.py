"""The answer cache through a real Envoy, with a real Redis."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.answer_cache import HIT_DETAILS
from headgate.core.contract import Counting
from tests.box import KEYS, Box, digest, metric, policy, running_box, settlements
from tests.envoy.conftest import Upstream
from tests.envoy.test_api import Managed
from tests.envoy.test_budget import counted
from tests.patience import wait_until
from tests.ports import free_port
from tests.postgres_server import temporary_folder
from tests.redis_server import PATIENT_S, RedisServer, running_redis, running_redis_cluster

STORED = 'headgate_cache_answers_total{outcome="stored"}'
LIMITS = """
      - {count: requests, limit: 3, per: year, users: [bob]}
      - {count: tokens, limit: 1000000, per: year}
      - {count: concurrent, limit: 50}
"""
OTHER_TENANT = f"""
  initech:
    models: [tiny]
    answer_cache: {{}}
    keys:
      - {{id: dave-key, user: dave, sha256: "{digest(KEYS["dave"])}"}}
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def caching(upstream: str) -> str:
    """A policy with a cache for model tiny and the tenants acme and initech, but not for globex."""
    text = policy(upstream, limits=LIMITS, more=OTHER_TENANT)
    text = text.replace("    prices: {", "    answer_cache: {}\n    prices: {cached_answer: 1, ", 1)
    text = text.replace("models: [private]", "models: [private, tiny]")
    return text.replace("    timezone:", "    answer_cache: {}\n    timezone:", 1)


def patient_store(redis: RedisServer) -> list[str]:
    """The options for it. An answer that Redis gives too late on a busy machine is a miss."""
    return ["--store", redis.url, "--store-deadline-ms", str(int(PATIENT_S * 1000))]


@contextmanager
def running(
    folder: Path, upstream: str, redis: RedisServer, options: Sequence[str] = ()
) -> Iterator[Box]:
    secret = folder / "secret"
    secret.write_text("0123456789abcdef" * 4)
    more = ["--cache-secret-file", str(secret), "--path", "standard", *patient_store(redis)]
    with running_box(folder, caching(upstream), *more, *options) as box:
        yield box


@pytest.fixture(scope="module")
def box(
    upstream: Upstream, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with running(tmp_path_factory.mktemp("box-cache"), upstream.url, redis) as started:
        yield started


@pytest.fixture(scope="module", params=Counting)
def counted_box(
    request: pytest.FixtureRequest,
    upstream: Upstream,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Box]:
    if request.param is Counting.PROXY:
        yield request.getfixturevalue("box")
        return
    folder = tmp_path_factory.mktemp("box-cache-counted")
    redis.client().flushall()
    with running(folder, upstream.url, redis, ["--counting", "extproc"]) as started:
        yield started


def ask(box: Box, text: str, user: str = "alice", **more: Any) -> httpx.Response:
    """A deterministic chat, with more fields or `headers`."""
    headers = more.pop("headers", {})
    messages = [{"role": "user", "content": text}]
    body = {"model": "tiny", "max_tokens": 4, "temperature": 0, "messages": messages, **more}
    return box.post("/v1/chat/completions", body, user, headers=headers)


def kept(box: Box, text: str, user: str = "alice", **fields: Any) -> httpx.Response:
    """The first answer to a request, once it is in the cache."""
    before = metric(box.metrics(), STORED)
    answer = ask(box, text, user, **fields)
    assert answer.headers["x-headgate-cache"] == "miss"
    wait_until(lambda: metric(box.metrics(), STORED) > before, "the answer to be kept")
    return answer


def is_hit(answer: httpx.Response) -> bool:
    return answer.headers.get("x-headgate-cache") == "hit"


def grown(box: Box, act: Callable[[], httpx.Response]) -> dict[str, int]:
    """How many calls and messages one request took. The proxy settles no hit."""
    before = counted(box)
    box.record_of(act().headers["x-request-id"])
    return {name: value - before[name] for name, value in counted(box).items()}


def test_the_same_request_gets_the_same_answer(counted_box: Box) -> None:
    first = kept(counted_box, "json")
    second = ask(counted_box, "json")

    assert is_hit(second)
    assert second.content == first.content
    assert second.headers["cache-control"] == "private"
    assert int(second.headers["age"]) >= 0


def test_a_hit_is_recorded_with_its_tokens_and_a_price_of_its_own(counted_box: Box) -> None:
    kept(counted_box, "record")
    answer = ask(counted_box, "record")

    record = counted_box.record_of(answer.headers["x-request-id"])
    usage = answer.json()["usage"]
    assert (record["cache"], record["details"]) == ("hit", HIT_DETAILS)
    assert (record["source"], record["upstream_status"]) == ("usage", None)
    assert record["prompt_tokens"] == usage["prompt_tokens"]
    assert record["completion_tokens"] == usage["completion_tokens"]
    assert record["cost"] == pytest.approx(usage["total_tokens"] / 1e6)


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
def test_a_stream_is_replayed_with_the_usage_that_this_client_wants(
    counted_box: Box, options: dict[str, bool] | None
) -> None:
    """One kept stream serves both clients, as vLLM was asked for usage in either case."""
    text = f"stream {options}"
    first = kept(counted_box, text, stream=True, stream_options=options)
    same = ask(counted_box, text, stream=True, stream_options=options)
    other = ask(counted_box, text, stream=True, stream_options={"include_usage": not options})

    assert is_hit(same)
    assert same.content == first.content
    assert same.headers["content-type"] == first.headers["content-type"]
    assert is_hit(other)
    assert (b'"usage":{' in same.content, b'"usage":{' in other.content) == (
        bool(options),
        not options,
    )
    record = counted_box.record_of(other.headers["x-request-id"])
    assert (record["cache"], record["completion_tokens"]) == ("hit", 4)


def test_an_adapter_has_answers_and_a_name_of_its_own(counted_box: Box) -> None:
    base = kept(counted_box, "adapter")
    adapted = kept(counted_box, "adapter", model="sql-expert")
    again = ask(counted_box, "adapter", model="sql-expert")

    assert is_hit(again)
    assert again.content == adapted.content != base.content
    assert again.json()["model"] == "sql-expert"


def test_a_tenant_never_gets_an_answer_of_another_one(box: Box) -> None:
    first = kept(box, "foreign")
    theirs = kept(box, "foreign", user="dave")

    assert theirs.json()["id"] != first.json()["id"]
    assert ask(box, "foreign", user="dave").content == theirs.content


def test_a_body_that_is_opted_out_never_leaves_the_proxy(box: Box) -> None:
    """One message with the headers, and no body: the tenant globex has no cache."""
    grew = grown(box, lambda: ask(box, "secret", user="carol"))

    assert (grew["streams"], grew["sent"], grew["received"]) == (1, 1, 1)


def test_no_store_keeps_a_body_in_the_proxy(box: Box) -> None:
    headers = {"cache-control": "no-store"}
    kept(box, "kept out")
    grew = grown(box, lambda: ask(box, "kept out", headers=headers))

    assert (grew["streams"], grew["sent"], grew["received"]) == (1, 1, 1)


def test_a_hit_costs_two_messages_and_no_call_of_the_rate_limit_filter(box: Box) -> None:
    kept(box, "budget")
    grew = grown(box, lambda: ask(box, "budget"))

    assert (grew["checks"], grew["streams"], grew["sent"], grew["received"]) == (1, 1, 2, 2)


def test_a_miss_sends_its_answer_to_the_service_and_a_request_with_chance_does_not(
    box: Box,
) -> None:
    chance = grown(box, lambda: ask(box, "chance", temperature=1))

    assert (chance["sent"], chance["received"]) == (2, 2)
    assert not is_hit(ask(box, "chance", temperature=1))
    missed = grown(box, lambda: ask(box, "missed"))
    assert missed["sent"] == missed["received"] >= 4


def test_no_cache_gets_a_fresh_answer_which_is_kept(box: Box) -> None:
    first = kept(box, "fresh")
    fresh = kept(box, "fresh", headers={"cache-control": "no-cache"})

    assert fresh.json()["id"] != first.json()["id"]
    assert ask(box, "fresh", headers={"cache-control": "max-age=60"}).content == fresh.content


def test_a_limit_refuses_a_hit_as_it_refuses_a_request(box: Box) -> None:
    """Three requests of bob's are let through: a miss and two hits."""
    kept(box, "limit", user="bob")
    assert is_hit(ask(box, "limit", user="bob"))
    last = ask(box, "limit", user="bob")
    assert (is_hit(last), last.headers["x-ratelimit-remaining-requests"]) == (True, "0")

    hit = ask(box, "limit", user="bob")
    missed = ask(box, "another", user="bob")
    assert (hit.status_code, missed.status_code) == (429, 429)
    without_id = [{**each.json()["error"], "request_id": ""} for each in (hit, missed)]
    assert without_id[0] == without_id[1]
    names = ("content-type", "x-should-retry", "x-ratelimit-limit-requests")
    assert [hit.headers.get(name) for name in names] == [missed.headers.get(name) for name in names]
    records = [box.record_of(each.headers["x-request-id"]) for each in (hit, missed)]
    for field in ("status", "details", "flags", "limit", "cost", "source"):
        assert records[0][field] == records[1][field], field


def test_each_hit_is_settled_once(box: Box) -> None:
    kept(box, "settled")
    page = box.metrics()
    before = settlements(page, "accesslog", "usage") + settlements(page, "ratelimit", "usage")
    answers = [ask(box, "settled") for _ in range(5)]
    for answer in answers:
        assert box.record_of(answer.headers["x-request-id"])["cache"] == "hit"

    page = box.metrics()
    after = settlements(page, "accesslog", "usage") + settlements(page, "ratelimit", "usage")
    assert after - before == 5


def test_a_client_that_leaves_leaves_nothing_in_the_cache(box: Box) -> None:
    """An answer of this length does not end before its client leaves."""
    lost = 'headgate_cache_answers_total{outcome="not_whole"}'
    messages = [{"role": "user", "content": "leaving"}]
    more = {"max_tokens": 6000, "ignore_eos": True, "temperature": 0, "stream": True}
    body = {"model": "tiny", "messages": messages, **more}
    url = f"{box.url}/v1/chat/completions"
    for _ in range(2):
        before = metric(box.metrics(), lost)
        with httpx.stream("POST", url, json=body, headers=box.headers()) as answer:
            next(answer.iter_bytes())
            assert answer.headers["x-headgate-cache"] == "miss"
        wait_until(lambda before=before: metric(box.metrics(), lost) > before, "its end")


def test_the_command_line_purges_a_tenant_and_the_change_log_says_so(
    upstream: Upstream, tmp_path: Path
) -> None:
    """On a Redis Cluster, which refuses what touches more than one slot."""
    with temporary_folder() as folder, running_redis_cluster() as redis:
        url, token = f"127.0.0.1:{free_port()}", tmp_path / "operator-token"
        options = ["--database-dir", str(folder / "db"), "--api", url]
        options += ["--operator-token-file", str(token)]
        with running(tmp_path, upstream.url, redis, options) as box:
            managed = Managed(box, f"http://{url}", token, folder / "db")
            first, theirs = kept(box, "purged"), kept(box, "purged", user="dave")

            assert managed.json("cache", "purge", "--tenant", "acme") == {
                "tenant": "acme",
                "answers": 1,
            }
            assert kept(box, "purged").content != first.content
            assert ask(box, "purged", user="dave").content == theirs.content
            [change] = managed.json("audit", "list", "--tenant", "acme")
            assert (change["action"], change["after"]["answers"]) == ("cache.purge", 1)
