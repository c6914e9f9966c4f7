"""Traces of a real box, on both paths."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import Box, policy, running_box
from tests.envoy.conftest import Upstream
from tests.otlp import Receiver, receiver

LIMITS = "\n      - {count: requests, limit: 1, per: day}\n"
HOOKS = {HookPath.LEAN: 1, HookPath.STANDARD: 3}
_numbers = count(1)


@pytest.fixture
def spans() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def traced_chat(box: Box) -> str:
    """One chat in a trace of its own, whose id is returned."""
    trace_id = f"{next(_numbers):032x}"
    box.chat_with_headers({"traceparent": f"00-{trace_id}-{'ab' * 8}-01"})
    return trace_id


@pytest.mark.parametrize("path", HookPath)
def test_a_chat_and_its_refusal_have_the_same_tags_on_both_paths(
    path: HookPath, upstream: Upstream, spans: Receiver, tmp_path: Path
) -> None:
    text = policy(upstream.url, limits=LIMITS)
    with running_box(tmp_path, text, "--otlp", spans.url, "--path", path) as box:
        served, refused = traced_chat(box), traced_chat(box)
        first = spans.trace(served, HOOKS[path] + 2)
        second = spans.trace(refused, HOOKS[path] + 1)
        records = {record["trace_id"]: record for record in box.wait_records(2)}
    for seen, record in ((first, records[served]), (second, records[refused])):
        (top,) = [span for span in seen if span.parent_span_id.hex() == "ab" * 8]
        assert top.name == "chat tiny"
        expected = {
            "guid:x-request-id": record["request_id"],
            "headgate.tenant": "acme",
            "user.id": "alice",
            "headgate.reservation": record["reservation"],
            "gen_ai.request.model": "tiny",
            "http.status_code": str(record["status"]),
            "headgate.refused_by": record["limit"],
        }
        assert {key: top.tags.get(key) for key in expected} == expected
    assert records[refused]["limit"] is not None


def test_openmetrics_names_the_trace_of_a_slow_answer_and_the_plain_page_does_not(
    upstream: Upstream, tmp_path: Path
) -> None:
    with running_box(tmp_path, policy(upstream.url)) as box:
        trace_id = traced_chat(box)
        box.wait_records(1)
        pages = {
            kind: httpx.get(f"{box.admin_url}/metrics", headers={"accept": kind}).text
            for kind in ("application/openmetrics-text;version=1.0.0", "text/plain")
        }
    shown, plain = pages.values()
    lines = [line for line in shown.splitlines() if trace_id in line]
    names = {line.split("{")[0] for line in lines}
    assert names == {"headgate_request_seconds_bucket", "headgate_ttft_seconds_bucket"}
    assert all(f'# {{trace_id="{trace_id}"}}' in line for line in lines)
    assert trace_id not in plain
