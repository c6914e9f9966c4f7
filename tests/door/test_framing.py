"""How requests are read from a connection: one meaning, or an error. `cases/framing.yaml`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.door.rig import BODIES, Decider
from tests.envoy_process import CHAT, Rig
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(
    (Path(__file__).parent / "cases/framing.yaml").read_text("utf-8")
)
SMALL = json.dumps(BODIES[CHAT])


def bytes_of(case: dict[str, Any]) -> bytes:
    text = "\r\n".join(case["head"]) + "\r\n\r\n" + case["body"]
    text = text.replace("{hex length}", f"{len(SMALL):x}").replace("{length}", str(len(SMALL)))
    return text.replace("{body}", SMALL).encode("latin-1")


async def statuses(rig: Rig, sent: bytes) -> list[int]:
    """The status of each answer on one connection, which the client then closes."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
        try:
            writer.write(sent)
            statuses = []
            while not statuses or statuses[-1] < 200:
                head = await reader.readuntil(b"\r\n\r\n")
                statuses.append(int(head.split(b" ", 2)[1]))
            return statuses
        finally:
            writer.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["shape"]).replace(" ", "-"))
async def test_a_request_has_one_meaning_or_none(rig: Rig, case: dict[str, Any]) -> None:
    await rig.reset()
    rig.services.process = Decider().process
    answers = await statuses(rig, bytes_of(case))

    assert answers[0] == case["status"]
    bodies = [received.body for received in rig.upstream.received]
    assert bodies == ([SMALL.encode()] if case.get("forwarded") else [])
    for received in rig.upstream.received:
        assert received.headers["x-headgate-base"] == "tiny"
        assert not {"x-vllm-priority", "expect", "upgrade"} & set(received.headers)
