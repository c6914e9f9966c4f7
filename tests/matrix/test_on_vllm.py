"""The cells of a real vLLM (HEADGATE_TEST_UPSTREAM), in both ways of counting."""

import asyncio
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from tests.box import Box
from tests.matrix.boxes import key_of, matrix_box
from tests.matrix.cases import Answer, Case, choices_of
from tests.matrix.cells import Cell, matrix
from tests.matrix.client import Seen, Sent, ask
from tests.matrix.judge import Played, problems
from tests.matrix.oracle import (
    as_asked,
    events_of,
    events_with_text,
    gist,
    masked,
    progress,
    without_member,
)
from tests.patience import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = os.environ["HEADGATE_TEST_UPSTREAM"]
MATRIX = replace(matrix(), models={"asked": "tiny", "forces": "tiny"})
LEAVES_AFTER = (1, 2, 5)
ALL_USAGE = {"include_usage": True, "continuous_usage_stats": True}


@dataclass(frozen=True)
class Server:
    """This vLLM in the words of the matrix."""

    vllm: str
    apis: list[str]

    def cells(self) -> list[Cell]:
        """The cells that it has."""
        cells = (cell for cell in MATRIX.cells if cell.api in self.apis)
        return [cell for cell in cells if cell.vllm == self.vllm]


@pytest.fixture(scope="module")
def server() -> Server:
    """Found out by asking it."""
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1, "stream": True}
    answer = httpx.post(f"{URL}/v1/completions", json=body)
    kind = "pooling" if answer.status_code == 404 else "chat"
    vllm = "forces" if '"usage"' in answer.text else "asked"
    return Server(vllm, MATRIX.servers[kind])


@pytest.fixture(scope="module", params=["proxy", "extproc"])
def counting(request: pytest.FixtureRequest) -> str:
    """Both ways."""
    return str(request.param)


@pytest.fixture(scope="module")
def box(counting: str, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box in front of it."""
    upstreams = {"asked": URL, "forces": URL}
    folder = tmp_path_factory.mktemp("matrix")
    forced = server.vllm == "forces"
    with matrix_box(folder, upstreams, counting, tiny_forces_usage=forced) as running:
        yield running


def sent(cell: Cell, more: dict[str, Any], **headers: str) -> Sent:
    request = MATRIX.requests[cell.api]
    body = {**MATRIX.body(cell), **more} if "body" in request else None
    return Sent(request["path"], body, headers, request.get("form"))


async def plain(cell: Cell, more: dict[str, Any]) -> Seen:
    """The answer without us; of a vLLM that forces usage, the part that was asked for."""
    seen = await ask(URL, sent(cell, more, **{"x-request-id": str(uuid.uuid4())}))
    body = seen.body
    if cell.vllm == "forces" and cell.answer == "stream" and seen.status == 200:
        body = as_asked(body, cell.usage)
    lacks = MATRIX.lacks(cell)
    return replace(seen, body=body if lacks is None else without_member(body, lacks))


async def vllm_events(cell: Cell) -> list[bytes]:
    """vLLM's events with all of its usage."""
    if cell.answer == "whole":
        return []
    more = {"stream_options": ALL_USAGE} if cell.api in ("chat", "completions") else {}
    return events_of((await ask(URL, sent(cell, more))).body)


async def through(box: Box, cell: Cell, more: dict[str, Any], name: str, **how: Any) -> Seen:
    own = {"authorization": f"Bearer {key_of(cell.api)}", "user-agent": name}
    return await ask(box.url, sent(cell, more, **own), **how)


def record_of(box: Box, name: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        return next((record for record in box.records() if record["user_agent"] == name), None)

    return dict(wait_until(found, f"the record of {name}"))


async def test_cells_that_end_by_themselves(box: Box, server: Server, counting: str) -> None:
    wrong = []
    for cell in server.cells():
        for point in MATRIX.points_of(cell):
            if point not in ("end", "before") or not MATRIX.is_real(cell, point):
                continue
            fails = cell.ending == "upstream_error"
            more = MATRIX.requests[cell.api]["error"] if fails else {}
            case = Case(cell, point, error=400 if fails else None)
            seen = await through(box, cell, more, str(case))
            straight = await plain(cell, more)
            answer = Answer(straight, [] if fails else await vllm_events(cell))
            record = await asyncio.to_thread(record_of, box, str(case))
            played = Played(case, seen, straight, record, answer)
            is_stream = seen.status == 200 and cell.answer == "stream"
            wrong += problems(MATRIX, played, counting, gist if is_stream else masked)
    assert not wrong, "\n".join(wrong[:10])


async def test_cells_whose_client_leaves(box: Box, server: Server) -> None:
    """Charged is what it has seen, or what vLLM had sent besides until it noticed."""
    wrong = []
    for cell in server.cells():
        if not MATRIX.is_real(cell, "event") or "event" not in MATRIX.points_of(cell):
            continue
        answer = await vllm_events(cell)
        for after in LEAVES_AFTER:
            name = f"{cell}, after {after}"
            most = next(iter(MATRIX.long[cell.api].values())) * 4

            def enough(body: bytes, after: int = after) -> bool:
                return body.count(b"\n\n") >= after

            seen = await through(box, cell, dict(MATRIX.long[cell.api]), name, enough=enough)
            record = await asyncio.to_thread(record_of, box, name)
            outcome = MATRIX.outcome(cell, "event")
            charged = outcome["charged"]
            got = (seen.status, record["source"], "DC" in record["flags"])
            least = events_with_text(seen.body)
            prompts = (progress([event], choices_of(cell)).prompt for event in answer)
            first_prompt = min(filter(None, prompts), default=0)
            if got != (200, charged["source"], True):
                wrong.append(f"{name}: {got}")
            elif not least <= record["completion_tokens"] < most:
                wrong.append(f"{name}: {record['completion_tokens']} tokens, {least} seen")
            elif record["prompt_tokens"] < first_prompt:
                wrong.append(f"{name}: {record['prompt_tokens']} tokens of the prompt")
    assert not wrong, "\n".join(wrong[:10])
