"""The calls, messages and bytes that a request may cost on the standard path; counted by Envoy.

`test_lean.py` has those of the lean path.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.box import Box, metric, policy, running_box, settlements, small_chat
from tests.envoy.conftest import LIMITS, Upstream
from tests.patience import wait_until

ENVOY = {
    "checks": "ext_authz.ok",
    "streams": "ext_proc.streams_started",
    "sent": "ext_proc.stream_msgs_sent",
    "received": "ext_proc.stream_msgs_received",
}
RESERVED = 'headgate_decisions_total{decision="ok",hook="ratelimit"}'
LIMIT_CALLS = 'headgate_hook_seconds_count{hook="ratelimit"}'


@pytest.fixture(scope="module")
def box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("box-standard")
    text = policy(upstream.url, limits=LIMITS)
    with running_box(folder, text, "--path", "standard") as running:
        yield running


@pytest.fixture(scope="module")
def box_forced(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("box-standard-forced")
    text = policy(upstream.url, forces_usage=True, limits=LIMITS)
    with running_box(folder, text, "--path", "standard") as running:
        yield running


def grown(box: Box, act: Callable[[], httpx.Response]) -> dict[str, int]:
    """How many calls and messages one request took, from its start to its record and settlement."""
    before = counted(box)
    box.record_of(act().headers["x-request-id"])
    wait_until(lambda: settled_by_proxy(box), "the proxy's settlement")  # the record may be first
    return {name: value - before[name] for name, value in counted(box).items()}


def settled_by_proxy(box: Box) -> bool:
    """Whether the proxy has settled all that it has reserved; it settles refused requests too."""
    page = box.metrics()
    refused = settlements(page, "ratelimit", "unknown")
    return settlements(page, "ratelimit") - refused == metric(page, RESERVED)


def counted(box: Box) -> dict[str, int]:
    """Envoy's counters of calls to the services, and the services' own of the limit calls."""
    stats = box.stats()
    counts = {
        short: sum(value for name, value in stats.items() if name.endswith(full))
        for short, full in ENVOY.items()
    }
    counts["limit calls"] = int(metric(box.metrics(), LIMIT_CALLS))
    counts["bytes"] = stats["cluster.headgate_services.upstream_cx_tx_bytes_total"]
    return counts


def calls(grew: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in grew.items() if name != "bytes"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tokens", [2, 200])
def test_a_request_without_rewrite_costs_one_check_one_message_two_limit_calls(
    box_forced: Box, stream: bool, tokens: int
) -> None:
    grew = grown(box_forced, lambda: box_forced.chat(stream=stream, max_tokens=tokens))

    assert calls(grew) == {
        "checks": 1,
        "streams": 1,
        "sent": 1,
        "received": 1,
        "limit calls": 2,
    }


def test_a_rewritten_request_costs_one_message_more(box: Box) -> None:
    grew = grown(box, lambda: box.chat(stream=True, max_tokens=50))

    assert calls(grew) == {
        "checks": 1,
        "streams": 1,
        "sent": 2,
        "received": 2,
        "limit calls": 2,
    }


def test_a_field_of_the_platform_costs_one_message_more(box_forced: Box) -> None:
    """Its body goes to the services to have it taken out."""
    grew = grown(box_forced, lambda: box_forced.chat(priority=1))

    assert (grew["checks"], grew["streams"], grew["sent"], grew["limit calls"]) == (1, 1, 2, 2)


@pytest.mark.simulator
def test_an_answer_that_ext_proc_counts_costs_a_message_for_each_piece(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Its headers, its chunks (200 tokens come in nearly as many) and its end; nobody's 401 none,
    a 429 its headers only."""
    text = policy(
        upstream.url, forces_usage=True, limits="[{count: requests, limit: 1, per: year}]"
    )
    with running_box(tmp_path, text, "--counting", "extproc") as box:
        streamed = grown(box, lambda: box.chat(stream=True, max_tokens=200))
        refused = grown(box, box.chat)
        unknown = grown(box, lambda: httpx.get(f"{box.url}/v1/models"))

    assert 20 < streamed["sent"] <= 2 + 204
    assert streamed["received"] == streamed["sent"]
    assert (streamed["checks"], streamed["streams"], streamed["limit calls"]) == (1, 1, 2)
    assert (refused["sent"], unknown["sent"]) == (2, 0)


def test_the_services_receive_as_much_for_a_long_prompt_as_for_a_short_one(box: Box) -> None:
    """On one connection, thus one of Envoy's workers: each introduces itself once, with 60 KB."""
    url = f"{box.url}/v1/chat/completions"
    with httpx.Client(headers=box.headers()) as client:

        def bytes_to_services(prompt: str) -> int:
            body = {**small_chat(), "messages": [{"role": "user", "content": prompt}]}
            return grown(box, lambda: client.post(url, json=body))["bytes"]

        bytes_to_services("warm up")
        short = bytes_to_services("x" * 1_000)
        long = bytes_to_services("x" * 1_000_000)

    assert long < 2 * short


def test_a_request_without_a_key_costs_no_message_to_ext_proc(box: Box) -> None:
    grew = grown(box, lambda: httpx.get(f"{box.url}/v1/models"))

    assert (grew["streams"], grew["sent"]) == (0, 0)


def test_what_is_left_of_the_limits_costs_one_check_and_one_message(box: Box) -> None:
    grew = grown(box, lambda: httpx.get(f"{box.url}/v1/headgate/limits", headers=box.headers()))

    assert calls(grew) == {
        "checks": 1,
        "streams": 1,
        "sent": 1,
        "received": 1,
        "limit calls": 0,
    }
