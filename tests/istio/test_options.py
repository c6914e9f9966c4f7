"""The options with which a container starts vLLM."""

from typing import Any

import pytest

from headgate.istio_check.options import amount, server_options

IMAGE = "vllm/vllm-openai:v0.32.0"


def read(args: list[str], **more: Any) -> tuple[int | None, tuple[str, ...] | None, bool, bool]:
    options = server_options({"image": IMAGE, "args": args, **more})
    assert options is not None
    return (options.model_length, options.names, options.forces_usage, options.is_complete)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["org/m"], (None, ("org/m",), False, True)),
        (["--model", "org/m", "--max-model-len", "8192"], (8192, ("org/m",), False, True)),
        (["--model=org/m", "--max_model_len=8k"], (8000, ("org/m",), False, True)),
        (["org/m", "--max-model-len=auto"], (None, ("org/m",), False, True)),
        (["org/m", "--max-model-len=1024", "--max-model-len=2K"], (2048, ("org/m",), False, True)),
        (["org/m", "--served-model-name", "a", "b", "-q"], (None, ("a", "b"), False, True)),
        (["org/m", "--enable-force-include-usage"], (None, ("org/m",), True, True)),
        (["org/m", "--no-enable-force-include-usage"], (None, ("org/m",), False, True)),
        (["org/m", "--config=c.yaml"], (None, ("org/m",), False, False)),
        (["org/m", "$(MORE)"], (None, ("org/m",), False, False)),
        (["--served-model-name=$(NAME)"], (None, None, False, True)),
    ],
)
def test_arguments_are_read_as_vllm_reads_them(
    args: list[str], expected: tuple[int | None, tuple[str, ...] | None, bool, bool]
) -> None:
    assert read(args) == expected


def test_variables_with_a_value_are_filled_in() -> None:
    env = [{"name": "LENGTH", "value": "4096"}, {"name": "NAME", "value": "m"}]
    args = ["--max-model-len=$(LENGTH)", "--served-model-name", "$(NAME)"]

    assert read(args, env=env) == (4096, ("m",), False, True)


def test_a_shell_script_is_split_into_words() -> None:
    script = "exec vllm serve org/m \\\n  --max-model-len 4096 --served-model-name m $MORE\n"
    command = ["/bin/sh", "-c"]

    assert read([script.replace(" $MORE", "")], command=command) == (4096, ("m",), False, True)
    assert read([script], command=command)[3] is False


def test_a_program_of_python_is_vllm_under_any_image() -> None:
    command = ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"]
    options = server_options({"image": "registry/own:1", "command": command})

    assert options is not None
    assert options.names == ("m",)


@pytest.mark.parametrize(
    "container",
    [
        {},
        {"image": "busybox", "args": ["--max-model-len=1"]},
        {"image": IMAGE, "command": ["sleep", "1"]},
        {"image": IMAGE, "command": [None, 3], "args": "no list"},
    ],
)
def test_other_containers_are_not_read(container: dict[str, Any]) -> None:
    assert server_options(container) is None


@pytest.mark.parametrize(
    ("written", "number"),
    [("8192", 8192), ("1.5k", 1500), ("1K", 1024), ("1M", 2**20), ("2m", 2_000_000), ("-1", None)],
)
def test_amounts_have_units_of_ten_or_of_two(written: str, number: int | None) -> None:
    assert amount(written) == number
