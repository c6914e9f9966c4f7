"""The committed EnvoyFilters hold the filters of one box."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from headgate.cli import cli

COMPONENTS = Path(__file__).parents[2] / "istio" / "components"
RENDERED = {
    "gateway": (),
    "extproc-counting": ("--counting", "extproc"),
    "lean": ("--path", "lean"),
    "sidecar": ("--attach", "sidecar"),
    "waypoint": ("--attach", "waypoint"),
}


PLACED = ("llama-8b", "llama-70b", "qwen-8b", "lora")


@pytest.mark.parametrize(
    ("component", "options", "models"),
    [("placement", (), PLACED), ("placement-waypoint", ("--attach", "waypoint"), PLACED[:1])],
)
def test_the_committed_placement_is_as_rendered(
    component: str, options: tuple[str, ...], models: tuple[str, ...]
) -> None:
    services = (("--service", f"{name}.vllm.svc.cluster.local:8000") for name in models)
    shown = CliRunner().invoke(
        cli, ["render", "placement", *options, *(w for pair in services for w in pair)]
    )
    committed = (COMPONENTS / component / "envoyfilters.yaml").read_text(encoding="utf-8")

    assert shown.exit_code == 0
    assert committed == shown.stdout, "`make render` writes it anew"


@pytest.mark.parametrize("component", RENDERED)
def test_committed_filters_are_as_rendered(component: str) -> None:
    shown = CliRunner().invoke(cli, ["render", "istio", *RENDERED[component]])
    committed = (COMPONENTS / component / "envoyfilters.yaml").read_text(encoding="utf-8")

    assert shown.exit_code == 0
    assert committed == shown.stdout, "`make render` writes them anew"


def test_another_limit_of_bodies_is_in_the_filter_and_in_the_413() -> None:
    shown = CliRunner().invoke(cli, ["render", "istio", "--body-limit", "50MB"])

    assert shown.stdout.startswith("# Rendered by `headgate render istio --body-limit 50MB`")
    assert "max_request_bytes: 50000000" in shown.stdout
    assert "larger than 50 MB, the limit of this gateway" in shown.stdout


def test_a_script_is_readable_text_of_several_lines() -> None:
    committed = (COMPONENTS / "gateway" / "envoyfilters.yaml").read_text(encoding="utf-8")

    assert "\n                function envoy_on_request(handle)\n" in committed


def test_patches_stand_in_the_order_of_their_priority_and_have_names_of_their_own() -> None:
    text = (COMPONENTS / "gateway" / "envoyfilters.yaml").read_text(encoding="utf-8")
    objects = list(YAML(typ="safe", pure=True).load_all(text))
    priorities = [manifest["spec"]["priority"] for manifest in objects]
    names = [
        patch["patch"]["value"]["name"]
        for patch in objects[-1]["spec"]["configPatches"]
        if patch["patch"]["operation"] == "INSERT_BEFORE"
    ]

    assert priorities == sorted(set(priorities))
    assert len(set(names)) == len(names)
    assert all(name.startswith("headgate.") for name in names)
