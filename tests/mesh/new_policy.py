"""Another policy for the replicas of a running mesh."""

import httpx

from tests.mesh.cluster import RunningMesh
from tests.patience import wait_until


def put_policy(mesh: RunningMesh, text: str) -> None:
    """Replaces the policy in one step, and waits until every replica has loaded it.

    A comment makes it a new one, even if the text is that of the last.
    """
    before = _loads(mesh)
    draft = mesh.folder / "headgate.draft"
    draft.write_text(f"# after {before}\n{text}")
    draft.replace(mesh.folder / "headgate.yaml")
    wait_until(
        lambda: all(new > old for new, old in zip(_loads(mesh), before, strict=True)),
        "the new policy",
    )


def _loads(mesh: RunningMesh) -> list[float]:
    """The number of policies that each replica has loaded."""
    name = 'headgate_policy_reloads_total{result="applied"}'
    counts = []
    for pod in mesh.pods_named("headgate"):
        lines = httpx.get(f"http://{pod.ip}:9002/metrics").text.splitlines()
        counts.append(sum(float(line.split()[-1]) for line in lines if line.startswith(name)))
    return counts
