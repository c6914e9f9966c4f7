"""The time of an answer tells nobody what another tenant has asked: the work is the same.

The work is counted, not timed: calls of the services, tokens of vLLM, and every command of the
cache in Redis, with those that its scripts give.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.box import Box
from tests.envoy.conftest import Upstream
from tests.envoy.test_budget import counted
from tests.envoy.test_cache import ask, is_hit, kept, running
from tests.redis_server import RedisServer, running_redis

END = "that-is-all"
NAME = re.compile(r"hg:cache:\{\w+\}:[\w:]+")
DIGEST = re.compile(r"[0-9a-f]{64}")
CALLS = ("checks", "streams")


@dataclass(frozen=True)
class Work:
    """What one request made others do."""

    answer: httpx.Response
    tokens: dict[str, int]
    calls: dict[str, int]
    commands: list[str]

    @property
    def digests(self) -> set[str]:
        """The keys of answers that Redis was asked for, or told."""
        return {found for command in self.commands for found in DIGEST.findall(command)}

    @property
    def amount(self) -> tuple[dict[str, int], list[tuple[str, list[str]]]]:
        """The calls, and each command with the names that it touches, whichever the digest."""
        commands = [
            (command.split()[0], NAME.findall(DIGEST.sub("DIGEST", command)))
            for command in self.commands
        ]
        return self.calls, commands


@dataclass(frozen=True)
class Site:
    """A box, its Redis and its vLLM."""

    box: Box
    redis: RedisServer
    upstream: Upstream

    def work(self, act: Callable[[], httpx.Response]) -> Work:
        """Asks, and returns what it took until all of it was settled."""
        tokens, calls = self.upstream.counters(), counted(self.box)
        with self.redis.client() as client, client.monitor() as monitor:
            answer = act()
            self.box.record_of(answer.headers["x-request-id"])
            client.echo(END)
            seen = list(iter(lambda: monitor.next_command()["command"], f"ECHO {END}"))
        return Work(
            answer=answer,
            tokens=_grown(tokens, self.upstream.counters()),
            calls={name: _grown(calls, counted(self.box))[name] for name in CALLS},
            commands=[command for command in seen if NAME.search(command)],
        )


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - value for name, value in before.items()}


@pytest.fixture(scope="module")
def site(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both tenants have an answer already, so that none of them is new to Redis."""
    folder = tmp_path_factory.mktemp("box-cache-timing")
    with running_redis() as redis, running(folder, upstream.url, redis) as box:
        for user in ("alice", "dave"):
            kept(box, "the first", user)
        yield Site(box, redis, upstream)


def test_a_body_that_another_tenant_has_asked_has_another_key_and_goes_to_vllm(site: Site) -> None:
    first = site.work(lambda: kept(site.box, "whose key"))
    foreign = site.work(lambda: kept(site.box, "whose key", "dave"))

    usage = foreign.answer.json()["usage"]
    assert foreign.tokens == {
        "prompt": usage["prompt_tokens"],
        "generation": usage["completion_tokens"],
    }
    assert len(first.digests) == len(foreign.digests) == 1
    assert first.digests.isdisjoint(foreign.digests)
    names = {name for command in foreign.commands for name in NAME.findall(command)}
    assert all(name.startswith("hg:cache:{initech}:") for name in names), names


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_costs_the_same_work_whether_another_tenant_has_asked_it_or_nobody(
    site: Site, stream: bool
) -> None:
    kept(site.box, f"asked {stream}", stream=stream)
    foreign = site.work(lambda: kept(site.box, f"asked {stream}", "dave", stream=stream))
    nobodys = site.work(lambda: kept(site.box, f"never {stream}", "dave", stream=stream))
    own = site.work(lambda: ask(site.box, f"asked {stream}", "dave", stream=stream))

    assert foreign.amount == nobodys.amount
    assert foreign.tokens["generation"] == nobodys.tokens["generation"] == 4
    assert is_hit(own.answer)
    assert own.amount != foreign.amount, "a hit's work must be seen to differ"
    assert own.tokens == {"prompt": 0, "generation": 0}
