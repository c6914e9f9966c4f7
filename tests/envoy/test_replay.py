"""`headgate replay` reads the records of a real Envoy."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.box import Box, environment, policy, running_box
from tests.envoy.conftest import Upstream
from tests.patience import PATIENCE_S

RECORDED = """
      - {count: requests, limit: 4, per: year, each: user}
"""
STRICTER = """
      - {count: requests, limit: 2, per: year, each: user}
"""


def replay(box: Box, policy_text: str) -> dict[str, Any]:
    path = box.folder / "new.yaml"
    path.write_text(policy_text)
    files = ["--records", str(box.folder / "usage.jsonl"), "--policy", str(path)]
    ended = subprocess.run(
        [sys.executable, "-m", "headgate", "replay", *files, "--format", "json"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def test_a_recorded_run_replays(upstream: Upstream, tmp_path: Path) -> None:
    with running_box(tmp_path, policy(upstream.url, limits=RECORDED)) as box:
        statuses = []
        for user in ("alice", "alice", "alice", "bob", "alice", "alice"):
            answer = box.chat(user=user)
            statuses.append(answer.status_code)
            box.record_of(answer.headers["x-request-id"])
        box.chat(model="nobody")
        box.wait_records(7)
        same = replay(box, policy(upstream.url, limits=RECORDED))
        stricter = replay(box, policy(upstream.url, limits=STRICTER))

    assert statuses == [200] * 5 + [429]
    assert (same["requests"], same["refused"], same["refused_when_recorded"]) == (6, 1, 1)
    assert (same["never_at_limits"], same["bad_lines"]) == (1, 0)
    assert [(row["user"], row["refused"]) for row in stricter["rows"]] == [("alice", 3), ("bob", 0)]
