"""`headgate check --istio`: its input and output, and that no input makes it crash."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cli import cli
from headgate.cli.rendering import istio_yaml
from headgate.core.errors import OperatorError
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.envoy_filters import Attach
from headgate.istio_check.check import check, check_files, mesh_of
from headgate.istio_check.findings import MeshRule
from headgate.istio_check.manifests import Manifest
from headgate.istio_check.mesh import Mesh
from tests.istio.good import ISTIO, MESH_CONFIG, OVERLAY, POLICY, good_mesh, in_place

OVERLAYS = [ISTIO / "overlays" / name for name in ("dev", "staging", "prod")]
POLICY_WITHOUT_VERSIONS = ISTIO / "overlays" / "dev" / "headgate.yaml"


def combined(folder: Path, *components: str, of: Path = OVERLAY) -> Path:
    lines = [f"resources: [{of}]", "components:"]
    lines += [f"  - {ISTIO}/components/{name}" for name in components]
    (folder / "kustomization.yaml").write_text("\n".join(lines))
    return folder


def rules(mesh: Mesh) -> set[MeshRule]:
    return {finding.rule for finding in check(mesh).findings}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_every_overlay_passes_without_a_finding(overlay: Path) -> None:
    report = check_files(overlay / "headgate.yaml", overlay, MESH_CONFIG)

    assert report.as_text().count("\n") == 0, report.as_text()


@pytest.mark.parametrize("body_limit_bytes", [BODY_LIMIT_BYTES, 8 * 2**20])
def test_a_mesh_on_the_lean_path_passes_without_a_finding(
    body_limit_bytes: int, tmp_path: Path
) -> None:
    shutil.copytree(ISTIO, tmp_path / "istio")
    rendered = istio_yaml(Attach.GATEWAY, body_limit_bytes=body_limit_bytes, path=HookPath.LEAN)
    (tmp_path / "istio/components/gateway/envoyfilters.yaml").write_text(rendered)
    overlay = tmp_path / "istio" / "overlays" / OVERLAY.name

    report = check_files(overlay / "headgate.yaml", overlay, MESH_CONFIG)

    assert report.findings == ()


@pytest.mark.parametrize(
    "components",
    [
        ("extproc-counting",),
        ("lean",),
        ("gateway-api",),
        ("gateway-api", "inference-pool"),
        ("keda", "keda/llama-8b-canary"),
        ("spot",),
        ("monitoring",),
        ("sso",),
        ("database",),
        ("database", "sso", "api"),
    ],
    ids="+".join,
)
def test_components_beside_the_gateway_pass_without_a_finding(
    components: tuple[str, ...], tmp_path: Path
) -> None:
    report = check_files(POLICY, combined(tmp_path, *components), MESH_CONFIG)

    assert report.findings == ()


@pytest.mark.parametrize("component", ["flagger", "argo-rollouts"])
def test_who_owns_the_weights_needs_a_policy_without_versions(
    component: str, tmp_path: Path
) -> None:
    folder = combined(tmp_path, component)

    assert rules(mesh_of(POLICY, folder, MESH_CONFIG)) == {MeshRule.VERSION_WITHOUT_ROUTE}
    assert rules(mesh_of(POLICY_WITHOUT_VERSIONS, folder, MESH_CONFIG)) == {MeshRule.POLICY_DIFFERS}


@pytest.mark.parametrize("component", ["sidecar", "waypoint"])
def test_the_request_path_at_the_model_servers_needs_no_routes(
    component: str, tmp_path: Path
) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/base, {ISTIO}/models/namespace, {ISTIO}/models/llama-8b, "
        f"gateway.yaml]\ncomponents: [{ISTIO}/components/{component}]\n"
    )
    gateway = (ISTIO / "components" / "gateway" / "gateway.yaml").read_text()
    (tmp_path / "gateway.yaml").write_text(gateway)

    assert rules(mesh_of(POLICY_WITHOUT_VERSIONS, tmp_path, MESH_CONFIG)) == set()


def test_what_istiod_makes_at_a_gateway_it_need_not_make_at_a_pod(tmp_path: Path) -> None:
    """`istio.alpn` is for calls that leave a proxy (istiod's `listener_builder.go`)."""
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{ISTIO}/overlays/dev]\npatches:\n"
        "  - {path: p.yaml, target: {kind: EnvoyFilter, name: headgate-filters}}\n"
    )
    router = "/spec/configPatches/0/match/listener/filterChain/filter/subFilter/name"
    context = "/spec/configPatches/0/match/context"
    anchored = f"- {{op: replace, path: {router}, value: istio.alpn}}\n"
    inbound = f"- {{op: replace, path: {context}, value: SIDECAR_INBOUND}}\n"

    (tmp_path / "p.yaml").write_text(anchored)
    assert MeshRule.ANCHOR_ABSENT not in rules(mesh_of(POLICY, tmp_path, MESH_CONFIG))
    (tmp_path / "p.yaml").write_text(anchored + inbound)
    assert MeshRule.ANCHOR_ABSENT in rules(mesh_of(POLICY, tmp_path, MESH_CONFIG))


def test_a_plain_folder_one_file_and_a_list_hold_the_same_objects(tmp_path: Path) -> None:
    folder, one_file, as_list = tmp_path / "folder", tmp_path / "all.yaml", tmp_path / "list.yaml"
    folder.mkdir()
    objects = [json.dumps(each.value, default=str) for each in good_mesh().manifests]
    for at, text in enumerate(objects):
        (folder / f"{at}.yml").write_text(text)
    one_file.write_text("\n---\n".join(objects))
    as_list.write_text(f'{{"apiVersion": "v1", "kind": "List", "items": [{",".join(objects)}]}}')

    for path in (folder, one_file, as_list):
        assert check_files(POLICY, path, MESH_CONFIG).findings == (), path


def test_the_mesh_configuration_may_stand_in_the_values_of_the_chart(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    lines = MESH_CONFIG.read_text().splitlines()
    values.write_text("meshConfig:\n" + "\n".join(f"  {line}" for line in lines))

    assert check_files(POLICY, OVERLAY, values).findings == ()


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["check", *map(str, arguments)])
    return result.exit_code, result.stdout, str(result.exception or "")


def test_the_command_prints_a_line_for_each_finding_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{OVERLAY}]\npatches: [{{path: p.yaml}}]\n"
    )
    (tmp_path / "p.yaml").write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        "metadata: {name: headgate-no-route, namespace: istio-ingress}\n$patch: delete\n"
    )
    code, out, _ = run(POLICY, "--istio", tmp_path, "--mesh-config", MESH_CONFIG)

    first, summary = out.splitlines()
    assert code == 1
    assert first.endswith("[no-catch-all]")
    assert "gateway.yaml:1: error: Gateway istio-ingress/headgate: " in first
    assert summary == "29 objects and 1 base models checked: 1 error, 0 warnings"


def test_json_is_a_list_with_all_fields() -> None:
    code, out, _ = run(POLICY, "--istio", OVERLAY, "--format", "json")
    [finding] = json.loads(out)

    assert code == 0
    assert list(finding) == ["rule", "severity", "file", "line", "object", "path", "what", "write"]
    assert (finding["rule"], finding["severity"]) == ("not-checked", "warning")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--istio", str(OVERLAY)],
        [str(POLICY), "--mesh-config", str(MESH_CONFIG)],
        [str(POLICY), "--format", "json"],
        [str(POLICY), "--istio", str(OVERLAY), "--ratelimit-config", str(POLICY)],
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


HOSTILE = {
    "no YAML": ("a: [", "this is not valid YAML"),
    "a list": ("- 1\n- 2\n", "not a mapping"),
    "a mapping that is no object": ("a: 1\n", "lacks apiVersion or kind"),
    "nothing": ("# nothing\n", "holds no object"),
    "a key twice": ("apiVersion: v1\nkind: Service\nkind: Service\n", "appears twice"),
    "a control character": ("apiVersion: v1\nkind: \x01\n", "control character"),
    "a tag": ("apiVersion: v1\nkind: !!python/object:os.system x\n", "YAML tag"),
    "an alias without an anchor": (
        "apiVersion: v1\nkind: *nothing\n",
        "the anchor &nothing is not defined above",
    ),
    "a bomb of aliases": (
        "apiVersion: v1\nkind: Bomb\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
        "more than 2000000 values",
    ),
    "a nest of lists": (f"apiVersion: v1\nkind: Nest\na: {'[' * 900}{']' * 900}\n", "nest deeper"),
    "10 MB of one text": (f"apiVersion: v1\nkind: 1\na: {'x' * 10_000_000}\n", "lacks apiVersion"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_files_are_lines_that_say_where(name: str, tmp_path: Path) -> None:
    text, expected = HOSTILE[name]
    file = tmp_path / "bad.yaml"
    file.write_text(text)

    with pytest.raises(OperatorError) as error:
        check_files(POLICY, file)
    assert str(error.value).startswith(str(file))
    assert expected in str(error.value)


def test_a_folder_of_kustomizations_is_no_folder_of_objects(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"name a folder that has one"):
        check_files(POLICY, ISTIO)
    with pytest.raises(OperatorError, match="cannot be read"):
        check_files(POLICY, tmp_path / "missing")
    with pytest.raises(OperatorError, match="holds no object"):
        check_files(POLICY, tmp_path)


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(below for key, each in inner for below in paths(each, (*path, key)))]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("outbound|x||y"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "name", "spec", "@type", "host", "{"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_whatever_stands_anywhere_is_findings_and_never_a_crash(data: st.DataObject) -> None:
    mesh = good_mesh()
    at = data.draw(st.integers(0, len(mesh.manifests)))
    config = mesh.config
    assert config is not None
    manifest = [*mesh.manifests, config][at]
    *parents, last = data.draw(st.sampled_from(paths(manifest.value)[1:]))
    value = json.loads(json.dumps(manifest.value, default=float))
    parent = value
    for key in parents:
        parent = parent[key]
    parent[last] = data.draw(ANYTHING)
    changed = Manifest(in_place(value), manifest.file)
    manifests = [changed if each is manifest else each for each in mesh.manifests]
    report = check(
        replace(
            mesh,
            manifests=tuple(manifests),
            config=changed if manifest is config else config,
        )
    )

    assert "\n" not in "".join(each.render() for each in report.findings)
    json.loads(report.as_json())


def test_a_hundred_models_are_checked_together(tmp_path: Path) -> None:
    models = "".join(
        f"  model-{n}:\n    upstream: http://model-{n}.vllm.svc.cluster.local:8000\n"
        "    context_tokens: 8192\n"
        for n in range(100)
    )
    policy = tmp_path / "headgate.yaml"
    rest = (
        POLICY_WITHOUT_VERSIONS.read_text().partition("tenants:")[2].replace("llama-8b", "model-1")
    )
    policy.write_text(f"models:\n{models}tenants:{rest}")
    objects = [each for each in good_mesh().manifests if "llama-8b" not in each.name]
    texts = [json.dumps(each.value, default=str) for each in objects if each.kind != "ConfigMap"]
    for file in sorted((ISTIO / "models" / "llama-8b").glob("*.yaml")):
        if file.stem != "kustomization":
            texts += [file.read_text().replace("llama-8b", f"model-{n}") for n in range(100)]
    (tmp_path / "all.yaml").write_text("\n---\n".join(texts))

    report = check_files(policy, tmp_path / "all.yaml", MESH_CONFIG)

    assert report.findings == ()
    assert "100 base models" in report.summary
