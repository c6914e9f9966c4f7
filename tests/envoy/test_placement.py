"""Headgate chooses the pod in one box: three vLLMs of one model, on both paths."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from headgate.core.lean_contract import HookPath
from tests.box import Box, metric, policy, running_box
from tests.envoy.conftest import LIMITS, started_simulator
from tests.patience import wait_until

pytestmark = pytest.mark.simulator  # three of them
ARGUMENTS = ("--adapter", "lora-a", "--ttft-s", "0", "--token-interval-s", "0")
CONVERSATIONS = [f"c{number}" for number in range(12)]
APPLIED = 'headgate_policy_reloads_total{result="applied"}'
REFUSED = 'headgate_policy_reloads_total{result="refused"}'


def text(pods: Sequence[str]) -> str:
    """The policy with these pods, of which each takes one request for its affinity."""
    rest = f"    pods: {json.dumps(list(pods))}\n    pod_slots: 1\n" if pods else ""
    rest += "    affinity: prompt\n"
    whole = policy(f"http://{PLAIN}", limits=LIMITS, forces_usage=True)
    return whole.replace("    context_tokens", f"{rest}    context_tokens", 1)


PLAIN = "127.0.0.1:8000"


@dataclass
class Placed:
    """A box and the addresses of its three vLLMs."""

    box: Box
    pods: tuple[str, ...]

    def write(self, pods: Sequence[str], awaited: str = APPLIED) -> None:
        """Writes these pods into the policy, and waits until it is applied or refused."""
        before = metric(self.box.metrics(), awaited)
        draft = self.box.folder / "headgate.draft"
        draft.write_text(f"# {before}\n{text(pods)}")
        draft.replace(self.box.folder / "headgate.yaml")
        wait_until(lambda: metric(self.box.metrics(), awaited) > before, awaited)

    def pod_of(self, conversation: str, user: str = "alice") -> str:
        """The pod that answers the conversation's next request, once that has ended."""
        answer = self.box.chat(user, prompt_cache_key=conversation)
        assert answer.status_code == 200, answer.text
        return str(self.box.record_of(answer.headers["x-request-id"])["pod"])

    def pods_of(self) -> dict[str, str]:
        return {conversation: self.pod_of(conversation) for conversation in CONVERSATIONS}


@pytest.fixture(scope="module", params=HookPath)
def placed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Placed]:
    folder: Path = tmp_path_factory.mktemp("placed")
    with ExitStack() as stack:
        urls = [stack.enter_context(started_simulator(*ARGUMENTS)) for _ in range(3)]
        pods = tuple(url.removeprefix("http://") for url in urls)
        options = ("--path", request.param, "--affinity-salt", "0123456789abcdef")
        box = stack.enter_context(running_box(folder, text(pods), *options))
        yield Placed(box, pods)


def test_a_conversation_keeps_its_pod_and_conversations_are_spread(placed: Placed) -> None:
    """A pod takes one request here, so the end of each must be known before the next."""
    first, second = placed.pods_of(), placed.pods_of()

    assert first == second
    assert set(first.values()) == set(placed.pods)


def test_requests_of_two_tenants_with_one_key_have_nothing_in_common(placed: Placed) -> None:
    own = placed.pods_of()
    answers = [
        placed.box.post(
            "/v1/chat/completions",
            {"model": "private", "max_tokens": 1, "messages": [], "prompt_cache_key": each},
            "carol",
        )
        for each in CONVERSATIONS
    ]
    pods = [placed.box.record_of(each.headers["x-request-id"])["pod"] for each in answers]

    assert pods != list(own.values())
    assert set(pods) <= set(placed.pods)


def test_users_with_one_system_prompt_share_its_pod(placed: Placed) -> None:
    """Without the help of their clients; other prompts have other pods."""
    found: dict[str, set[str]] = {}
    for number in range(8):
        prompt = f"You are assistant {number}."
        for user in ("alice", "bob"):
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": user}]
            answer = placed.box.chat(user, messages=messages)
            record = placed.box.record_of(answer.headers["x-request-id"])
            found.setdefault(prompt, set()).add(record["pod"])

    assert [len(pods) for pods in found.values()] == [1] * 8
    assert len(set.union(*found.values())) > 1


def test_turns_that_vllm_stores_meet_one_pod_however_many_there_are(placed: Placed) -> None:
    """A pod takes one request here. Chats at once are spread, and responses are not."""
    bodies = {
        "/v1/chat/completions": {"model": "tiny", "max_tokens": 1, "messages": []},
        "/v1/responses": {"model": "tiny", "max_output_tokens": 1, "input": "Hi"},
    }
    pods: dict[str, set[str]] = {}
    for path, body in bodies.items():
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(placed.box.post, path, body) for _ in range(24)]
        ids = [each.result().headers["x-request-id"] for each in asked]
        pods[path] = {str(placed.box.record_of(each)["pod"]) for each in ids}

    assert len(pods["/v1/responses"]) == 1
    assert len(pods["/v1/chat/completions"]) > 1


def test_a_reload_moves_only_the_conversations_of_a_pod_that_left(placed: Placed) -> None:
    before = placed.pods_of()
    placed.write(placed.pods[:2])
    without = placed.pods_of()
    placed.write(placed.pods)
    after = placed.pods_of()

    moved = {each for each in CONVERSATIONS if before[each] != without[each]}
    assert moved == {each for each in CONVERSATIONS if before[each] == placed.pods[2]}
    assert after == before


def test_pods_may_leave_the_policy_and_come_back(placed: Placed) -> None:
    """Without them Envoy asks the model's own address, where nobody listens here."""
    placed.write(())
    assert placed.box.chat().status_code == 503
    placed.write(placed.pods)
    assert placed.box.chat().status_code == 200


def test_a_box_without_pods_at_its_start_refuses_the_first_ones(tmp_path: Path) -> None:
    with running_box(tmp_path, text(())) as box:
        Placed(box, ()).write([PLAIN], REFUSED)
        log = (tmp_path / "up.log").read_text()

    assert "no model had `pods` when the box started: start it again" in log
