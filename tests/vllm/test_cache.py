"""The answer cache in front of the real vLLM: a kept answer is what vLLM would say again."""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.box import Box
from tests.envoy.conftest import Upstream
from tests.envoy.test_cache import ask, is_hit, kept, running
from tests.redis_server import running_redis

URL = os.environ.get("HEADGATE_TEST_UPSTREAM", "")
DETERMINISTIC: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 1, "seed": 7}]
USAGE = {"include_usage": True}
VLLM = Upstream(URL, real=True)

pytestmark = pytest.mark.skipif(not URL, reason="only for a real vLLM")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box-cache-vllm")
    with running_redis() as redis, running(folder, URL, redis) as started:
        yield started


def said(answer: httpx.Response) -> tuple[str, int, int]:
    """The text of an answer, whole or streamed, and its tokens."""
    if answer.headers["content-type"].startswith("application/json"):
        body = answer.json()
        return body["choices"][0]["message"]["content"], *_tokens(body["usage"])
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    events = [json.loads(line) for line in lines]
    pieces = [choice["delta"].get("content") for event in events for choice in event["choices"]]
    return "".join(piece or "" for piece in pieces), *_tokens(events[-1]["usage"])


def _tokens(usage: dict[str, int]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize("more", DETERMINISTIC, ids=["temperature 0", "seed"])
@pytest.mark.parametrize("form", [{}, {"stream": True, "stream_options": USAGE}])
def test_a_hit_costs_vllm_nothing_and_says_what_vllm_says_again(
    box: Box, more: dict[str, Any], form: dict[str, Any]
) -> None:
    asked = {"max_tokens": 40, **more, **form}
    first = kept(box, "again", **asked)
    before = VLLM.counters()
    hit = ask(box, "again", **asked)
    assert (is_hit(hit), hit.content) == (True, first.content)
    assert VLLM.counters() == before

    fresh = kept(box, "again", **asked, headers={"cache-control": "no-cache"})
    assert VLLM.counters()["generation"] - before["generation"] == said(fresh)[2]
    assert said(fresh) == said(hit)
    assert fresh.content != hit.content, "the answer of another request has another id"
    record = box.record_of(hit.headers["x-request-id"])
    assert (record["cache"], record["prompt_tokens"], record["completion_tokens"]) == (
        "hit",
        *said(hit)[1:],
    )


def test_a_whole_answer_and_a_stream_say_the_same_and_are_kept_apart(box: Box) -> None:
    whole = kept(box, "forms", max_tokens=40)
    streamed = kept(box, "forms", max_tokens=40, stream=True, stream_options=USAGE)

    assert said(whole) == said(streamed)
    hits = [ask(box, "forms", max_tokens=40)]
    hits.append(ask(box, "forms", max_tokens=40, stream=True, stream_options=USAGE))
    assert [hit.content for hit in hits] == [whole.content, streamed.content]


def test_without_a_fixed_choice_nothing_is_kept(box: Box) -> None:
    answers = [ask(box, "chance", max_tokens=40, temperature=1) for _ in range(3)]

    assert not any(map(is_hit, answers))
    assert len({said(answer)[0] for answer in answers}) > 1, "vLLM draws lots"
