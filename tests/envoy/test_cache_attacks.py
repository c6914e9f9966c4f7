"""The answer cache and clients that name other users, through a real Envoy."""

from collections.abc import Iterator

import httpx
import pytest

from tests.box import Box, metric
from tests.envoy.conftest import Upstream
from tests.envoy.test_cache import STORED, is_hit, running
from tests.patience import wait_until
from tests.redis_server import running_redis

ODD = 'headgate_cache_lookups_total{outcome="odd_body"}'


@pytest.fixture(scope="module")
def box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box-cache-attacks")
    with running_redis() as redis, running(folder, upstream.url, redis) as started:
        yield started


def ask(box: Box, text: str, named: str) -> httpx.Response:
    """A deterministic chat of alice's whose body has the members `named` as they are."""
    messages = f'[{{"role":"user","content":"{text}"}}]'
    body = f'{{{named}"model":"tiny","max_tokens":4,"temperature":0,"messages":{messages}}}'
    headers = {**box.headers(), "content-type": "application/json"}
    return httpx.post(f"{box.url}/v1/chat/completions", content=body, headers=headers)


def kept(box: Box, text: str, named: str) -> httpx.Response:
    """The first answer to a request, once it is in the cache."""
    before = metric(box.metrics(), STORED)
    answer = ask(box, text, named)
    assert not is_hit(answer)
    wait_until(lambda: metric(box.metrics(), STORED) > before, "the answer to be kept")
    return answer


def test_each_user_that_a_client_names_has_answers_of_its_own(box: Box) -> None:
    """Front ends name their users by `user` or by `metadata`."""
    by_user = ['"user":"ann",', '"user":"ben",', '"user":"",', '"user":null,']
    by_metadata = [f'"metadata":{{"user_id":"{name}"}},' for name in ("ann", "ben")]
    names = ["", *by_user, *by_metadata]
    first = [kept(box, "whose", named) for named in names]
    again = [ask(box, "whose", named) for named in names]

    assert len({answer.json()["id"] for answer in first}) == len(names)
    assert all(map(is_hit, again))
    assert [answer.content for answer in again] == [answer.content for answer in first]


@pytest.mark.parametrize("users", [("ann", "ben"), ("ben", "ann"), ("ann", "ann")])
def test_a_body_that_names_its_user_twice_gets_no_kept_answer_and_leaves_none(
    box: Box, users: tuple[str, str]
) -> None:
    text = f"twice {users[0]} {users[1]}"
    own = [f'"user":"{name}",' for name in sorted(set(users))]
    first = [kept(box, text, named) for named in own]
    page = box.metrics()
    twice = [ask(box, text, "".join(f'"user":"{name}",' for name in users)) for _ in range(2)]

    assert [answer.status_code for answer in twice] == [200, 200]
    assert not any(map(is_hit, twice))
    assert not {one.content for one in twice} & {one.content for one in first}
    after = box.metrics()
    assert metric(after, ODD) - metric(page, ODD) == 2
    assert metric(after, STORED) == metric(page, STORED)
    assert [ask(box, text, named).content for named in own] == [one.content for one in first]
