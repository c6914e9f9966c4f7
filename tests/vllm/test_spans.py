"""The spans of vLLM, of Envoy and of the hooks in one tree, under the client's span."""

import os
from pathlib import Path

import pytest

from headgate.core.lean_contract import HookPath
from tests.box import policy, running_box
from tests.otlp import receiver

URL = os.environ.get("HEADGATE_TEST_UPSTREAM", "")
PORT = os.environ.get("HEADGATE_TEST_OTLP_PORT", "")
CLIENT = "ab" * 8
HOOKS = {HookPath.LEAN: 1, HookPath.STANDARD: 3}

pytestmark = pytest.mark.skipif(not PORT, reason="only for a real vLLM that traces")


@pytest.mark.parametrize("path", HookPath)
def test_one_tree_leads_from_the_client_to_the_queue_of_vllm(
    path: HookPath, tmp_path: Path
) -> None:
    trace_id = os.urandom(16).hex()
    with (
        receiver(int(PORT)) as spans,
        running_box(tmp_path, policy(URL), "--otlp", spans.url, "--path", path) as box,
    ):
        box.chat_with_headers({"traceparent": f"00-{trace_id}-{CLIENT}-01"})
        found = spans.trace(trace_id, HOOKS[path] + 3)
    by_id = {span.span_id: span for span in found}
    (top,) = [span for span in found if span.parent_span_id.hex() == CLIENT]
    (of_vllm,) = [span for span in found if span.name == "llm_request"]
    upstream = by_id[of_vllm.parent_span_id]
    assert upstream.name.startswith("router ")
    assert upstream.parent_span_id == top.span_id
    hooks = [span for span in found if span.name.startswith("async ")]
    assert {span.parent_span_id for span in hooks} == {top.span_id}
    assert "gen_ai.latency.time_in_queue" in of_vllm.tags
