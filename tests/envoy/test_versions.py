"""A canary in one box: two vLLMs as two versions, and conversations that keep theirs."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.box import KEYS, Box, metric, policy, running_box, small_chat
from tests.envoy.conftest import LIMITS, started_simulator
from tests.patience import wait_until

pytestmark = pytest.mark.simulator  # two of them
CONVERSATIONS = 1000
AT_ONCE = 8


def text(first: str, second: str, weights: tuple[int, int]) -> str:
    """The policy with the model `tiny` in two versions."""
    versions = (
        f'    versions:\n      v1: {{weight: {weights[0]}, upstream: "{first}"}}\n'
        f'      v2: {{weight: {weights[1]}, upstream: "{second}"}}\n'
    )
    whole = policy(first, limits=LIMITS, forces_usage=True)
    return whole.replace("  sql-expert:\n", f"{versions}  sql-expert:\n", 1)


class Canary:
    """A box and its two upstreams."""

    def __init__(self, box: Box, urls: tuple[str, str]) -> None:
        self.box = box
        self.urls = urls

    def weigh(self, v1: int, v2: int, tenant: str = "") -> None:
        """Writes other weights (and a line for the tenant) and waits until they are in force."""
        loaded = self._loads()
        file = self.box.folder / "headgate.yaml"
        draft = file.with_suffix(".draft")
        whole = text(*self.urls, (v1, v2))
        draft.write_text(f"# {loaded}\n" + whole.replace("  acme:\n", f"  acme:\n{tenant}"))
        draft.replace(file)
        wait_until(lambda: self._loads() > loaded, "the new weights")

    def _loads(self) -> float:
        lines = httpx.get(f"{self.box.admin_url}/metrics").text.splitlines()
        name = 'headgate_policy_reloads_total{result="applied"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def versions_of(self, conversations: range, **headers: str) -> Mapping[str, str]:
        """The version that each conversation's next request got, as its record tells."""
        ids = asyncio.run(self._send(conversations, headers))
        found = {
            record["request_id"]: record["version"]
            for record in wait_until(lambda: self._records(set(ids)), "the records")
        }
        return {conversation: found[request_id] for request_id, conversation in ids.items()}

    def _records(self, ids: set[str]) -> list[dict[str, str]] | None:
        found = [record for record in self.box.records() if record["request_id"] in ids]
        return found if len(found) == len(ids) else None

    async def _send(self, conversations: range, headers: Mapping[str, str]) -> dict[str, str]:
        ids: dict[str, str] = {}
        waiting = iter(conversations)
        own = {"authorization": f"Bearer {KEYS['alice']}", **headers}

        async def work(client: httpx.AsyncClient) -> None:
            for number in waiting:
                body = {**small_chat(), "max_tokens": 1, "prompt_cache_key": f"c{number}"}
                url = f"{self.box.url}/v1/chat/completions"
                answer = await client.post(url, json=body, headers=own)
                assert answer.status_code == 200, answer.text
                ids[answer.headers["x-request-id"]] = f"c{number}"

        async with httpx.AsyncClient() as client:
            await asyncio.gather(*(work(client) for _ in range(AT_ONCE)))
        return ids


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    folder: Path = tmp_path_factory.mktemp("canary")
    options = ("--model", "tiny", "--force-usage", "--ttft-s", "0", "--token-interval-s", "0")
    with started_simulator(*options) as first, started_simulator(*options) as second:
        urls = (first, second)
        with running_box(folder, text(*urls, (90, 10))) as box:
            yield Canary(box, urls)


def test_no_conversation_changes_its_version_while_weights_go_from_10_to_50(
    canary: Canary,
) -> None:
    before = canary.versions_of(range(CONVERSATIONS))
    canary.weigh(50, 50)
    after = canary.versions_of(range(CONVERSATIONS))
    fresh = canary.versions_of(range(CONVERSATIONS, 2 * CONVERSATIONS))
    canary.weigh(100, 0)
    rolled_back = canary.versions_of(range(CONVERSATIONS))

    assert 60 < list(before.values()).count("v2") < 140
    assert sum(before[conversation] != after[conversation] for conversation in before) == 0
    assert 430 < list(fresh.values()).count("v2") < 570
    assert set(rolled_back.values()) == {"v1"}


def test_the_second_version_is_another_vllm(canary: Canary) -> None:
    def answered(url: str) -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_tot")
        )

    canary.weigh(0, 100)
    before = [answered(url) for url in canary.urls]
    seen = canary.versions_of(range(50))
    after = [answered(url) for url in canary.urls]

    assert set(seen.values()) == {"v2"}
    assert [new - old for new, old in zip(after, before, strict=True)] == [0, 50]


def test_demand_is_reserved_and_settled_on_the_version_that_answers(canary: Canary) -> None:
    canary.weigh(50, 50)
    canary.versions_of(range(20))

    def in_flight(version: str) -> tuple[float, float]:
        labels = f'{{base="tiny",version="{version}"}}'
        names = ("headgate_reserved_requests_total", "headgate_settled_requests_total")
        reserved, settled = (metric(canary.box.metrics(), name + labels) for name in names)
        return reserved, settled

    for version in ("v1", "v2"):
        wait_until(lambda: len({*in_flight(version)}) == 1, f"the end of requests to {version}")  # noqa: B023
        assert in_flight(version)[0] > 0
    assert in_flight("-") == (0, 0)


def test_headers_of_clients_that_may_not_choose_choose_nothing(canary: Canary) -> None:
    canary.weigh(100, 0)
    forged = {"x-model-version": "v2", "x-headgate-version": "v2"}

    assert set(canary.versions_of(range(20), **forged).values()) == {"v1"}


def test_a_client_that_may_choose_gets_a_version_without_a_weight(canary: Canary) -> None:
    canary.weigh(100, 0, tenant="    chooses_version: true\n")
    chosen = canary.versions_of(range(20), **{"x-model-version": "v2"})
    others = canary.versions_of(range(20))

    assert set(chosen.values()) == {"v2"}
    assert set(others.values()) == {"v1"}
