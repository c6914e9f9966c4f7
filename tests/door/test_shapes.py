"""vLLM reads the request that was decided on, or the request is refused with 400."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML

from tests.door.bodies import requests
from tests.door.readers import Reader, Reading, simulator_reads
from tests.door.rig import BODIES, disagreement, on_both_paths, pass_through, with_members
from tests.envoy_process import CHAT, Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(
    (Path(__file__).parent / "cases/shapes.yaml").read_text("utf-8")
)
JSON = "application/json"


def filled(text: str) -> str:
    """The text with its long parts written out."""
    text = text.replace("{9K}", " " * 9216).replace("{0K}", "0" * 9216)
    text = text.replace("{10M}", " " * 10_000_000)
    return re.sub(r"\{deep (\d+)\}", lambda m: "[" * int(m[1]) + "]" * int(m[1]), text)


def body_of(case: dict[str, Any]) -> bytes:
    path = case.get("path", CHAT)
    text = case["body"] if "body" in case else with_members(path, case["members"])
    encoded = filled(text).encode(case.get("encode", "utf-8"))
    return bytes.fromhex(case.get("hex", "")) + encoded + bytes.fromhex(str(case.get("tail", "")))


def ids(case: dict[str, Any]) -> str:
    return str(case["shape"]).replace(" ", "-")


@on_both_paths
@pytest.mark.parametrize("case", CASES, ids=ids)
async def test_our_answer_to_a_shape(rig: Rig, reads: Reader, case: dict[str, Any]) -> None:
    """vLLM reads every request that passed as it was decided."""
    path, kind, body = case.get("path", CHAT), case.get("type", JSON), body_of(case)
    passage = await pass_through(rig, path, kind, body)

    if case["answer"] == "same":
        assert passage.status == 200, passage
        assert passage.forwarded is not None
        assert disagreement(passage, reads(path, kind, passage.forwarded)) is None
    else:
        assert [passage.status, passage.param] == case["answer"]
        assert passage.forwarded is None


@pytest.mark.parametrize("case", CASES, ids=ids)
async def test_what_vllm_itself_reads_of_a_shape(reads: Reader, case: dict[str, Any]) -> None:
    """vLLM alone, without Headgate: it explains the rules of the door."""
    path, kind = case.get("path", CHAT), case.get("type", JSON)
    read = reads(path, kind, body_of(case))

    expected = case["vllm"]
    if reads is simulator_reads:
        expected = case.get("simulator", expected)
    if expected == "refused":
        assert read is None
    else:
        small = reads(path, JSON, json.dumps(BODIES[path]).encode())
        assert read is not None
        assert small is not None
        shown = {name: getattr(read, name) for name in Reading.__dataclass_fields__}
        assert shown == {
            **{name: getattr(small, name) for name in Reading.__dataclass_fields__},
            "set": read.set,
            **{name: filled_if_text(value) for name, value in expected.items()},
        }


def filled_if_text(value: Any) -> Any:
    return filled(value) if isinstance(value, str) else value


@on_both_paths
@settings(
    max_examples=int(os.environ.get("HEADGATE_DOOR_EXAMPLES", "300")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(request=requests)
async def test_generated_bodies_are_read_alike_or_refused(
    rig: Rig, reads: Reader, request: tuple[str, str, bytes]
) -> None:
    """Members of every spelling and kind, in any order and number, in broken bodies too."""
    path, kind, body = request
    passage = await pass_through(rig, path, kind, body)

    if passage.forwarded is None:
        assert 400 <= passage.status < 500
        return
    assert passage.status == 200
    assert disagreement(passage, reads(path, kind, passage.forwarded)) is None
