"""GET /v1/headgate/limits through the real Envoy, with the caller's own key."""

import json
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.box import KEYS, Box, policy, running_box
from tests.envoy.conftest import Upstream

PATH = "/v1/headgate/limits"
LIMITS = """
      - {count: requests, limit: 50, per: year, each: user}
      - {count: tokens, limit: 1000000, per: year, each: [user, model]}
      - {count: tokens, limit: 1, per: year, shadow: true}
      - {count: concurrent, limit: 10}
      - {count: cost, limit: 0.002, per: year, models: [sql-expert]}
      - {count: tokens, limit: 90000, per: year, models: [sql-expert],
         weights: {cached_input: 0.1, output: 4}}
"""


@pytest.fixture(scope="module")
def box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("box-self-service")
    with running_box(folder, policy(upstream.url, limits=LIMITS)) as running:
        yield running


def limits(box: Box, query: str = "", user: str = "alice") -> list[dict[str, Any]]:
    answer = httpx.get(f"{box.url}{PATH}{query}", headers=box.headers(user))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def by_count(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["count"]: entry for entry in entries if not entry["shadow"]}


def test_it_says_what_the_headers_of_the_next_answer_say(box: Box) -> None:
    first = box.chat()
    record = box.record_of(first.headers["x-request-id"])
    shown = by_count(limits(box, "?model=tiny"))
    headers = box.chat().headers

    assert shown["requests"]["limit"] == int(headers["x-ratelimit-limit-requests"])
    assert shown["requests"]["remaining"] - 1 == int(headers["x-ratelimit-remaining-requests"])
    assert shown["tokens"]["limit"] == int(headers["x-ratelimit-limit-tokens"])
    assert shown["tokens"]["used"] == record["prompt_tokens"] + record["completion_tokens"]
    held = box.record_of(headers["x-request-id"])["estimated_tokens"]
    assert shown["tokens"]["remaining"] - held == int(headers["x-ratelimit-remaining-tokens"])
    assert shown["concurrent"]["remaining"] == 10
    assert shown["requests"]["resets_at"].endswith("-01-01T00:00:00+01:00")


def test_money_and_weighted_tokens_are_charged_by_kind_and_money_ends(
    box: Box, upstream: Upstream
) -> None:
    prompt = [{"role": "user", "content": "the same words again, " * 100}]
    answers = [box.chat(model="sql-expert", messages=prompt) for _ in range(2)]
    records = [box.record_of(answer.headers["x-request-id"]) for answer in answers]
    too_dear = box.chat(model="sql-expert", max_tokens=4000)
    cost, weighted = limits(box, "?model=sql-expert")[-2:]

    kinds = [
        (
            record["prompt_tokens"] - record["cached_tokens"],
            record["cached_tokens"],
            record["completion_tokens"],
        )
        for record in records
    ]
    spent = [a * 200 + b * 50 + c * 600 for a, b, c in kinds]
    assert upstream.real or records[1]["cached_tokens"] > 0
    assert [record["cost"] for record in records] == [nanos / 1e9 for nanos in spent]
    assert (cost["limit"], cost["used"]) == (0.002, sum(spent) / 1e9)
    assert weighted["used"] == sum(ceil((10 * a + b + 40 * c) / 10) for a, b, c in kinds)
    assert weighted["weights"] == {"input": 1, "cached_input": 0.1, "output": 4}
    assert [answer.status_code for answer in (*answers, too_dear)] == [200, 200, 429]
    left = f"{2_000_000 - sum(spent):09}".rstrip("0")
    assert (
        f"0.002 of cost per year on sql-expert for tenant acme, 0.{left} left, "
        "0.002 needed (an estimate); try again in" in too_dear.json()["error"]["message"]
    )


def test_asking_costs_nothing_and_reaches_no_model(box: Box, upstream: Upstream) -> None:
    before, counters = limits(box), upstream.counters()
    answers = [httpx.get(f"{box.url}{PATH}", headers=box.headers()) for _ in range(5)]
    record = box.record_of(answers[-1].headers["x-request-id"])

    def used(entries: list[dict[str, Any]]) -> list[int]:
        return [entry["used"] for entry in entries]

    assert used(limits(box)) == used(before)
    assert upstream.counters() == counters
    assert (record["api"], record["details"]) == ("limits", "headgate_limits")
    assert (record["user"], record["reservation"], record["source"]) == ("alice", None, None)


def test_a_shadow_limit_is_told_and_refuses_nobody(box: Box) -> None:
    assert [box.chat(user="bob").status_code for _ in range(3)] == [200, 200, 200]
    [shadow] = [entry for entry in limits(box, user="bob") if entry["shadow"]]

    assert (shadow["limit"], shadow["remaining"]) == (1, 0)
    assert shadow["used"] > 1
    would_refuse = 'headgate_shadow_refusals_total{limit="shadow.tokens.year",tenant="acme"} '
    assert would_refuse in box.metrics()


def test_the_official_client_reads_it(box: Box) -> None:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"]) as client:
        answer = client.get("/headgate/limits", cast_to=httpx.Response)

    assert json.loads(answer.text)["object"] == "list"


def test_a_key_is_needed_and_only_its_own_models_exist(box: Box) -> None:
    nobody = httpx.get(f"{box.url}{PATH}")
    elsewhere = httpx.get(f"{box.url}{PATH}?model=private", headers=box.headers())
    posted = box.post(PATH, {})

    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "missing_api_key")
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (404, "model_not_found")
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
    assert limits(box, user="carol") == []


def test_without_its_store_it_says_so(upstream: Upstream, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/no-redis.sock"
    text = policy(upstream.url, limits=LIMITS)
    with running_box(tmp_path, text, "--store", nowhere) as box:
        answer = httpx.get(f"{box.url}{PATH}", headers=box.headers())

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "service_unavailable"
    assert "limits" in answer.json()["error"]["message"]
