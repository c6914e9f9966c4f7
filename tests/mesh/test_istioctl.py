"""Istio's own tools find nothing wrong with the overlays."""

import json
import subprocess
from pathlib import Path

import pytest

from headgate.istio_check.kustomize import build
from tests.mesh.cluster import ISTIO, PILOT

ISTIOCTL = PILOT.with_name("istioctl")
OVERLAYS = sorted(folder.name for folder in (ISTIO / "overlays").iterdir())
EXPECTED = "EnvoyFilter exposes internal implementation details"
"""The warning that istioctl prints for every EnvoyFilter."""


@pytest.fixture(params=OVERLAYS)
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """All objects of an overlay in one file."""
    objects = build(ISTIO / "overlays" / request.param)
    file = tmp_path / f"{request.param}.yaml"
    plain = (json.dumps(manifest.value, default=float) for manifest in objects)
    file.write_text("\n---\n".join(plain))
    return file


def test_istioctl_validate_finds_nothing(built: Path) -> None:
    done = subprocess.run([ISTIOCTL, "validate", "-f", built], capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("\t*")]

    assert done.returncode == 0, done.stderr
    assert all(EXPECTED in line for line in said), said


def test_istioctl_analyze_finds_nothing(built: Path) -> None:
    config = ["--meshConfigFile", ISTIO / "mesh-config.yaml"]
    command = [ISTIOCTL, "analyze", "--use-kube=false", "-A", *config, built]
    done = subprocess.run(command, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if line.startswith(("Error", "Warning"))]

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(EXPECTED in line for line in said), said
