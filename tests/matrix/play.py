"""Plays the cells: each through a box and, with the same end, straight to the upstream."""

import asyncio
import uuid
from dataclasses import dataclass, replace
from typing import Any

import httpx

from tests.box import Box
from tests.matrix.cases import Answer, Case, cases_of
from tests.matrix.cells import Cell, Matrix
from tests.matrix.client import Seen, Sent, ask
from tests.matrix.judge import Played, problems
from tests.matrix.oracle import events_of, without_member
from tests.patience import wait_until

AT_ONCE = 16
_WORDS = {
    "client_abort": "stall_after",
    "upstream_cut": "cut_after",
    "upstream_reset": "reset_after",
    "engine_error": "error_after",
}
_ALL_USAGE = {"include_usage": True, "continuous_usage_stats": True}
_ALL_USAGE_OF_FORM = {f"stream_{name}": "true" for name in _ALL_USAGE}
_HOURS = "3600"


@dataclass(frozen=True)
class Stage:
    """Where cells are played: `plain_url` is a vLLM that sends usage when asked for it,
    `behind_url` the one behind the box, which counts by `counting`; `key` is that of a user who
    has asked nothing before."""

    matrix: Matrix
    box: Box
    plain_url: str
    behind_url: str
    key: str
    counting: str
    every_event: bool

    async def play(self, cells: list[Cell]) -> list[str]:
        """Plays these cells, all of one vLLM, and returns what is wrong with them."""
        model = self.matrix.models[cells[0].vllm]
        answers = dict(zip(cells, await _all([self._answer(cell) for cell in cells]), strict=True))
        cases = [
            case
            for cell in cells
            for case in cases_of(self.matrix, cell, answers[cell], every_event=self.every_event)
        ]
        cases.sort(key=_leaves_before)
        waiting = [case for case in cases if _leaves_before(case)]
        others = cases[: len(cases) - len(waiting)]
        through = await _all([self._through(case, answers[case.cell]) for case in others])
        through += await self._leave_before(waiting)
        straight = await _all([self._straight(case, answers[case.cell]) for case in cases])
        records = await asyncio.to_thread(self._records, cases)
        wrong = []
        for case, seen, plain in zip(cases, through, straight, strict=True):
            record = records[self._agent(case)]
            played = Played(case, seen, plain, record, answers[case.cell])
            wrong += problems(self.matrix, played, self.counting)
        return wrong + await asyncio.to_thread(self._settled_wrong, list(records.values()), model)

    # --- what is sent ------------------------------------------------------------------------

    def _sent(self, case: Case, words: str, **more: str) -> Sent:
        request = self.matrix.requests[case.cell.api]
        body = self.matrix.body(case.cell) if "body" in request else None
        form = self.matrix.form(case.cell) if "form" in request else None
        return Sent(request["path"], body, {"x-simulate": words, **more}, form)

    async def _answer(self, cell: Cell) -> Answer:
        plain_sent = self._sent(Case(cell, "end"), "")
        plain = await self._ask_plain(cell, plain_sent)
        if cell.answer == "whole":
            return Answer(plain, [])
        seen = await ask(self.behind_url, _with_all_usage(cell, plain_sent))
        return Answer(plain, events_of(seen.body))

    def _agent(self, case: Case) -> str:
        return f"{case}, behind {self.behind_url}"

    async def _through(self, case: Case, answer: Answer) -> Seen:
        own = {"authorization": f"Bearer {self.key}", "user-agent": self._agent(case)}
        sent = self._sent(case, _words(case, case.after), **own)
        if case.cell.ending != "client_abort":
            return await ask(self.box.url, sent)
        size_bytes = len(answer.first(answer.shown(case.after or 0)))
        return await ask(self.box.url, sent, lambda body: len(body) >= size_bytes)

    async def _leave_before(self, cases: list[Case]) -> list[Seen]:
        """All of them wait at the upstream before their clients leave."""
        if not cases:
            return []
        leave = asyncio.Event()
        own = {"authorization": f"Bearer {self.key}"}
        sent = [
            self._sent(case, f"headers_delay={_HOURS}", **own, **{"user-agent": self._agent(case)})
            for case in cases
        ]
        tasks = [asyncio.ensure_future(ask(self.box.url, request, leave=leave)) for request in sent]
        try:
            await asyncio.to_thread(
                wait_until, lambda: self._waiting() >= len(cases), "the requests at the upstream"
            )
        finally:
            leave.set()
        return list(await asyncio.gather(*tasks))

    def _waiting(self) -> float:
        page = httpx.get(f"{self.behind_url}/metrics").text.splitlines()
        lines = [line for line in page if line.startswith("vllm:num_requests_waiting{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def _straight(self, case: Case, answer: Answer) -> Seen:
        if case.point == "end":
            return answer.plain
        after = None if case.after is None else answer.shown(case.after)
        if case.cell.ending == "client_abort":
            return replace(answer.plain, body=answer.first(after or 0), end="left")
        return await self._ask_plain(case.cell, self._sent(case, _words(case, after)))

    async def _ask_plain(self, cell: Cell, sent: Sent) -> Seen:
        """The answer without us, minus what the cell is known to lack."""
        own_id = {"x-request-id": str(uuid.uuid4())}  # as long as Envoy's
        seen = await ask(self.plain_url, replace(sent, headers={**sent.headers, **own_id}))
        lacks = self.matrix.lacks(cell)
        return seen if lacks is None else replace(seen, body=without_member(seen.body, lacks))

    # --- what is checked ---------------------------------------------------------------------

    def _records(self, cases: list[Case]) -> dict[str, dict[str, Any]]:
        agents = {self._agent(case) for case in cases}

        def found() -> dict[str, dict[str, Any]] | None:
            records = {r["user_agent"]: r for r in self.box.records() if r["user_agent"] in agents}
            return records if len(records) == len(agents) else None

        return dict(wait_until(found, f"{len(agents)} usage records"))

    def _settled_wrong(self, records: list[dict[str, Any]], model: str) -> list[str]:
        """The limits hold what the records say, once all is settled."""
        expected = {
            "tokens": sum(
                (r["prompt_tokens"] or 0) + (r["completion_tokens"] or 0) for r in records
            ),
            "requests": sum(r["source"] not in (None, "refund") for r in records),
            "concurrent": 0,
        }
        used: dict[str, float] = {}

        def settled() -> bool:
            headers = {"authorization": f"Bearer {self.key}"}
            url = f"{self.box.url}/v1/headgate/limits?model={model}"
            limits = httpx.get(url, headers=headers).json()
            used.update({limit["count"]: limit["used"] for limit in limits["data"]})
            return used == expected

        try:
            wait_until(settled, "the settlements")
        except AssertionError:
            return [f"the limits have {used}, the records {expected}"]
        return []


def _with_all_usage(cell: Cell, sent: Sent) -> Sent:
    """The request as the box sends it on: with usage in every event, where it needs that."""
    if cell.api in ("chat", "completions"):
        return replace(sent, body={**(sent.body or {}), "stream_options": _ALL_USAGE})
    if cell.api == "transcriptions" and cell.vllm == "asked":
        return replace(sent, form={**(sent.form or {}), **_ALL_USAGE_OF_FORM})
    return sent


def _leaves_before(case: Case) -> bool:
    return case.cell.ending == "client_abort" and case.point == "before"


def _words(case: Case, after: int | None) -> str:
    if case.error is not None:
        return f"status={case.error}"
    if case.point == "before":
        return "hang_up=0"
    return "" if after is None else f"{_WORDS[case.cell.ending]}={after}"


async def _all(coroutines: list[Any]) -> list[Any]:
    """Runs all of them, AT_ONCE at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def in_turn(coroutine: Any) -> Any:
        async with gate:
            return await coroutine

    return await asyncio.gather(*(in_turn(coroutine) for coroutine in coroutines))
