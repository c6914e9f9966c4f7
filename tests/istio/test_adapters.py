"""The component adapters, and what the check says about vLLM's options beside a pool."""

from pathlib import Path
from typing import Any

import pytest

from headgate.istio_check.check import check, mesh_of
from headgate.istio_check.findings import CheckReport
from headgate.istio_check.kustomize import build
from headgate.istio_check.options import server_options
from tests.istio.good import ISTIO, MESH_CONFIG, POLICY

IMAGE = "vllm/vllm-openai:v0.32.0"
BEFORE = "models:\n"
POOL = """models:
  lora:
    upstream: http://lora.vllm.svc.cluster.local:8000
    context_tokens: 8192
    forces_usage: true
    prices: {input: 0.20, cached_input: 0.05, output: 0.60}
    adapter_pool:
      pods: ["lora-pods.vllm.svc.cluster.local:8000"]
      live: 8
      listed: 64
      max_rank: 32
      trained_on: [meta-llama/Llama-3.1-8B-Instruct]
"""


def overlay(folder: Path, *components: str) -> Path:
    listed = ", ".join(f"{ISTIO}/components/{name}" for name in components)
    resources = f"{ISTIO}/overlays/staging, {ISTIO}/models/lora"
    (folder / "headgate.yaml").write_text(POLICY.read_text().replace(BEFORE, POOL, 1))
    (folder / "kustomization.yaml").write_text(
        f"resources: [{resources}]\ncomponents: [{listed}]\n"
    )
    return folder


def checked(folder: Path) -> CheckReport:
    return check(mesh_of(folder / "headgate.yaml", folder, MESH_CONFIG))


def rules(report: CheckReport) -> set[str]:
    return {str(finding.rule) for finding in report.findings} - {"policy-differs"}


def test_the_component_fits_a_pool_of_its_model(tmp_path: Path) -> None:
    assert rules(checked(overlay(tmp_path, "database", "placement", "adapters"))) == set()


def test_without_the_component_vllm_loads_by_itself_and_headgate_reaches_no_pod(
    tmp_path: Path,
) -> None:
    report = checked(overlay(tmp_path, "database", "placement"))

    assert rules(report) == {"adapters-loaded-twice", "adapter-pods"}


def test_without_placement_requests_miss_the_pods_of_their_adapters(tmp_path: Path) -> None:
    assert rules(checked(overlay(tmp_path, "database", "adapters"))) == {"placement-missing"}


def test_in_ambient_mode_no_rule_has_paths(tmp_path: Path) -> None:
    overlay(tmp_path, "adapters", "adapters/ambient")
    policies = [
        str(manifest.value)
        for manifest in build(tmp_path)
        if manifest.kind == "AuthorizationPolicy" and "by-headgate" in manifest.name
    ]

    assert len(policies) == 2
    assert not any("paths" in policy for policy in policies)


def loaders(args: list[str], **variables: str) -> tuple[str, ...]:
    env = [{"name": name, "value": value} for name, value in variables.items()]
    container: dict[str, Any] = {"image": IMAGE, "args": ["org/m", *args], "env": env}
    options = server_options(container)
    assert options is not None
    return options.loras.loaders


@pytest.mark.parametrize(
    ("args", "variables", "expected"),
    [
        ([], {}, ()),
        (["--lora-modules", "a=/a"], {}, ("--lora-modules",)),
        ([], {"VLLM_LORA_RESOLVER_CACHE_DIR": "/a"}, ("VLLM_LORA_RESOLVER_CACHE_DIR",)),
        ([], {"VLLM_LORA_RESOLVER_CACHE_DIR": ""}, ()),
        ([], {"VLLM_LORA_RESOLVER_CACHE_DIR": "/a", "VLLM_PLUGINS": ""}, ()),
        (
            [],
            {
                "VLLM_LORA_RESOLVER_CACHE_DIR": "/a",
                "VLLM_PLUGINS": "x,lora_filesystem_resolver",
            },
            ("VLLM_LORA_RESOLVER_CACHE_DIR",),
        ),
        ([], {"VLLM_PLUGINS": "own_resolver"}, ("VLLM_PLUGINS=own_resolver",)),
        ([], {"VLLM_LORA_RESOLVER_HF_REPO_LIST": "o/r"}, ("VLLM_LORA_RESOLVER_HF_REPO_LIST",)),
    ],
)
def test_every_way_by_which_vllm_loads_adapters_itself_is_known(
    args: list[str], variables: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert loaders(args, **variables) == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {"max-loras": 1, "max-cpu-loras": 1, "max-lora-rank": 16}),
        (["--max-loras=4"], {"max-loras": 4, "max-cpu-loras": 4, "max-lora-rank": 16}),
        (
            ["--max_loras", "4", "--max-cpu-loras=9", "--max-lora-rank=$(RANK)"],
            {"max-loras": 4, "max-cpu-loras": 9, "max-lora-rank": None},
        ),
    ],
)
def test_sizes_have_vllms_own_defaults(args: list[str], expected: dict[str, int | None]) -> None:
    options = server_options({"image": IMAGE, "args": ["org/m", *args]})

    assert options is not None
    assert options.loras.sizes == expected
