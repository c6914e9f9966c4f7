"""Files of adapters: what is wrong with them, and that a copy is whole or not there at all."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.adapters.files.check import BaseShape, Fit, problems_of
from headgate.adapters.files.disk import AdapterDisk, is_version
from headgate.adapters.files.header import HeaderError, Tensor, read_header
from headgate.adapters.files.needs import need_of
from headgate.adapters.files.origin import MAX_CONFIG_BYTES, UnfitError, in_folder, in_kinds
from headgate.adapters.source import SourceError, read_place, read_source
from tests.adapters.files import (
    BASE,
    CONFIG,
    safetensors,
    tensors_of,
    write_adapter,
    write_base,
)

FIT = Fit(8, ("org/tiny",))


def read(data: bytes) -> dict[str, Tensor]:
    return read_header(io.BytesIO(data), len(data))


def problems(config: dict[str, Any] = CONFIG, **shapes: int) -> list[str]:
    tensors = read(safetensors(tensors_of(**shapes)))
    return problems_of(config, tensors, BaseShape.of(BASE), FIT)


def nothing(copied_bytes: int, size_bytes: int) -> None:
    assert copied_bytes <= size_bytes


def test_an_adapter_of_the_base_fits() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"base_model_name_or_path": "org/other"}, "trained on org/other, not on org/tiny"),
        ({"r": 16}, "rank is 16; allowed is 1 to 8"),
        ({"r": "4"}, "rank is 4; allowed"),
        ({"r": True}, "rank is True"),
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"use_dora": True}, "use_dora"),
    ],
)
def test_a_wrong_configuration_is_told(changed: dict[str, Any], problem: str) -> None:
    assert problem in problems({**CONFIG, **changed})[0]


def test_tensors_half_as_wide_are_told_though_vllm_takes_them() -> None:
    assert "lora_A has the shape (4, 32); the base needs (4, 64)" in problems(hidden=32)[0]


def test_tensors_of_another_rank_than_the_configuration_are_told() -> None:
    assert "has the shape (2, 64)" in problems(rank=2)[0]


def test_a_layer_that_the_base_lacks_is_told() -> None:
    assert any("layer that the base does not have (2)" in one for one in problems(layers=3))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("base_model.model.lm_head.lora_A.weight", "sizes are not known"),
        ("base_model.model.model.layers.0.self_attn.q_proj.weight", "is no matrix"),
    ],
)
def test_a_tensor_that_cannot_be_checked_is_told(name: str, problem: str) -> None:
    tensors = read(safetensors({name: (4, 64)}))
    assert problem in problems_of(CONFIG, tensors, BaseShape.of(BASE), FIT)[0]


def test_an_adapter_without_tensors_is_told() -> None:
    assert problems_of(CONFIG, {}, BaseShape.of(BASE), FIT) == ["it has no tensors"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"nope",
        safetensors(tensors_of())[:-1],
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        safetensors({}, a={"dtype": "F16", "shape": [1], "data_offsets": [0, 9]}),
        safetensors({}, a={"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}),
        safetensors({}, a={"dtype": "F16", "shape": [-1], "data_offsets": [2, 0]}),
        safetensors({}, a=7),
    ],
)
def test_a_file_that_is_no_whole_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(HeaderError):
        read(data)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_bytes_make_the_reader_fail_in_another_way(data: bytes, length: int) -> None:
    whole = length.to_bytes(8, "little") + data
    with contextlib.suppress(HeaderError):
        read(whole)


@pytest.mark.parametrize(
    "text",
    [
        "../secret",
        "acme/../../etc",
        "/etc/passwd",
        "acme//sql",
        "acme/.ssh",
        "",
        "http://169.254.169.254/latest",
        "file:///etc",
        "s3://",
        "s3://adapters",
        "s3://adapters/",
        "s3://adapters/../other/x",
        "s3://adapters//x",
        "s3://169.254.169.254/latest",
        "s3://user@host:80/x",
        "s3://a..b/x",
        "S3://adapters/x",
        "gs://adapters/x",
        "acme\\..\\x",
        "a\0b",
        "x" * 600,
    ],
)
def test_a_source_leads_neither_into_the_network_nor_out_of_its_root(text: str) -> None:
    with pytest.raises(SourceError):
        read_source(text)


@pytest.mark.parametrize("text", ["acme/sql-7", "s3://adapters/acme/sql-7"])
def test_a_source_is_read_as_it_was_written(text: str) -> None:
    assert str(read_source(text)) == text
    assert str(read_source(f"{text}/")) == text


def test_a_prefix_is_whole_names_and_not_letters() -> None:
    place = read_place("s3://adapters/acme")
    assert read_source("s3://adapters/acme/sql").is_in(place)
    assert not read_source("s3://adapters/acme-2/sql").is_in(place)
    assert not read_source("s3://others/acme/sql").is_in(place)
    assert not read_source("acme/sql").is_in(place)


@pytest.mark.parametrize("name", ["sql@1", "acme-sql@12", "a.b@3"])
def test_names_of_versions_are_folders(name: str) -> None:
    assert is_version(name)


@pytest.mark.parametrize("name", ["..", "../a@1", "a@", "@1", "a@1/..", "a..b@1", "a@1.part", "a"])
def test_other_names_are_no_folders(name: str) -> None:
    assert not is_version(name)


@pytest.fixture
def disk(tmp_path: Path) -> AdapterDisk:
    for name in ("sources", "pod"):
        (tmp_path / name).mkdir()
    return AdapterDisk(in_folder(tmp_path / "sources"), tmp_path / "pod", write_base(tmp_path))


def test_a_copy_is_whole_and_has_the_same_bytes(disk: AdapterDisk, tmp_path: Path) -> None:
    origin = write_adapter(tmp_path / "sources" / "acme" / "sql")
    moved: list[tuple[int, int]] = []
    disk.copy("sql@1", "acme/sql", FIT, lambda *numbers: moved.append(numbers))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "pod" / "sql@1" / name).read_bytes() == (origin / name).read_bytes()
    assert moved[-1][0] == moved[-1][1]
    assert disk.versions() == ["sql@1"]
    disk.remove("sql@1")
    assert disk.versions() == []


def test_an_adapter_that_does_not_fit_is_not_copied(disk: AdapterDisk, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sources" / "bad", {**CONFIG, "r": 64})
    with pytest.raises(UnfitError, match="rank is 64"):
        disk.copy("bad@1", "bad", FIT, nothing)
    assert list((tmp_path / "pod").iterdir()) == []


def test_what_a_broken_copy_left_is_replaced(disk: AdapterDisk, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sources" / "sql")
    left = tmp_path / "pod" / "sql@1.part"
    left.mkdir()
    (left / "adapter_config.json").write_text("half")
    assert not disk.has("sql@1")
    disk.copy("sql@1", "sql", FIT, nothing)
    assert disk.has("sql@1")


@pytest.mark.parametrize("name", ["sql", "sql/adapter_model.safetensors"])
def test_a_link_that_leads_out_of_the_root_is_refused(
    disk: AdapterDisk, tmp_path: Path, name: str
) -> None:
    outside = write_adapter(tmp_path / "outside")
    inside = tmp_path / "sources" / "sql"
    if name == "sql":
        inside.symlink_to(outside)
    else:
        inside.mkdir()
        (inside / "adapter_config.json").write_text(json.dumps(CONFIG))
        (tmp_path / "sources" / name).symlink_to(outside / "adapter_model.safetensors")
    with pytest.raises(UnfitError, match="leads out"):
        disk.copy("sql@1", "sql", FIT, nothing)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(disk: AdapterDisk, tmp_path: Path, missing: str) -> None:
    (write_adapter(tmp_path / "sources" / "sql") / missing).unlink()
    with pytest.raises(UnfitError, match=missing):
        disk.copy("sql@1", "sql", FIT, nothing)


def test_a_configuration_without_end_is_not_read(disk: AdapterDisk, tmp_path: Path) -> None:
    origin = write_adapter(tmp_path / "sources" / "sql")
    (origin / "adapter_config.json").write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(UnfitError, match=r"adapter_config.json is larger than 1048576 bytes"):
        disk.copy("sql@1", "sql", FIT, nothing)


def test_an_agent_without_a_bucket_reads_none(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="no sources of such a kind as s3://adapters/sql"):
        in_kinds(in_folder(tmp_path), None)(read_source("s3://adapters/sql"))


def exposition(waiting: str, **steps: str) -> str:
    """vLLM's metrics after steps in this order, each with `RUNNING/WAITING` adapters."""
    lines = [f'vllm:num_requests_waiting{{engine="0",model_name="tiny"}} {waiting}']
    for number, names in enumerate(steps.values()):
        running, _, asking = names.partition("/")
        labels = f'max_lora="4",running_lora_adapters="{running}",waiting_lora_adapters="{asking}"'
        lines.append(f"vllm:lora_requests_info{{{labels}}} 1.79{number}e+09")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("metrics", "need"),
    [
        (exposition("0.0"), ""),
        (exposition("0.0", first="sql@1/", last="/"), ""),
        (exposition("0.0", first="/", last="law@2,sql@1/"), "requests for it run"),
        (exposition("0.0", last="/law@2,sql@1"), "requests for it run"),
        (exposition("0.0", last="sql@11/"), ""),
        (exposition("1.0", last="law@2/law@2"), "requests wait, perhaps for it"),
        ("", "requests wait, perhaps for it"),
    ],
)
def test_files_stay_for_requests_that_vllm_has_taken(metrics: str, need: str) -> None:
    assert need_of("sql@1", ["tiny"], metrics) == need
    assert need_of("sql@1", ["tiny", "sql@1"], metrics) == "vLLM lists it"
