"""Plays the cells: each through a box and, with the same end, straight to the upstream."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from tests.box import Box, wait_until
from tests.matrix.cells import Cell, Matrix
from tests.matrix.client import Seen, Sent, ask
from tests.matrix.oracle import (
    data_of,
    events_of,
    is_last_word,
    masked,
    progress,
    prompt_and_completion,
    usage_of,
    without_member,
)

FLAT_TOKENS = 50
AT_ONCE = 16
ERRORS = (400, 503)
_WORDS = {
    "client_abort": "stall_after",
    "upstream_cut": "cut_after",
    "upstream_reset": "reset_after",
    "engine_error": "error_after",
}
_ALL_USAGE = {"include_usage": True, "continuous_usage_stats": True}
_HOURS = "3600"


@dataclass(frozen=True)
class Case:
    """One request of a cell: where it ends, after how many of vLLM's events (None: not so)."""

    cell: Cell
    point: str
    after: int | None = None
    error: int | None = None

    def __str__(self) -> str:
        after = "" if self.after is None else f" {self.after}"
        return f"{self.cell}, {self.point}{after}{'' if self.error is None else f' {self.error}'}"


@dataclass(frozen=True)
class Answer:
    """The complete answer to a cell: as its client would see it without us, and vLLM's own
    events when it is asked for all of its usage."""

    plain: Seen
    told: list[bytes]

    @property
    def last_word(self) -> int:
        """After how many events vLLM's final usage has passed."""
        return 1 + max(index for index, event in enumerate(self.told) if is_last_word(event))

    def shown(self, after: int) -> int:
        """How many of its own events a client has seen after so many of vLLM's."""
        hides = len(self.told) > len(events_of(self.plain.body))
        return after - (hides and after >= self.last_word)

    def first(self, events: int) -> bytes:
        """So many of its client's own events."""
        return b"".join(events_of(self.plain.body)[:events])


@dataclass(frozen=True)
class Stage:
    """Where cells are played: `plain_url` is a vLLM that sends usage when asked for it,
    `behind_url` the one behind the box."""

    matrix: Matrix
    box: Box
    plain_url: str
    behind_url: str
    key: str

    async def play(self, cells: list[Cell]) -> list[str]:
        """Plays these cells and returns what is wrong with them."""
        answers = dict(zip(cells, await _all([self._answer(cell) for cell in cells]), strict=True))
        cases = [case for cell in cells for case in cases_of(self.matrix, cell, answers[cell])]
        waiting = [case for case in cases if _leaves_before(case)]
        others = [case for case in cases if not _leaves_before(case)]
        played = await _all([self._through(case, answers[case.cell]) for case in others])
        played += await self._leave_before(waiting)
        straight = await _all([self._straight(case, answers[case.cell]) for case in others])
        records = await asyncio.to_thread(self._records, others + waiting)
        wrong = []
        for case, through, plain in zip(others, played, straight, strict=False):
            wrong += self._seen_wrong(case, through, plain, answers[case.cell])
        for case in others + waiting:
            wrong += self._charged_wrong(case, records[self._agent(case)], answers[case.cell])
        return wrong + await asyncio.to_thread(self._settled_wrong, list(records.values()))

    # --- what is sent ------------------------------------------------------------------------

    def _sent(self, case: Case, words: str, **more: str) -> Sent:
        request = self.matrix.requests[case.cell.api]
        body = self.matrix.body(case.cell) if "body" in request else None
        headers = {"x-simulate": words, **more}
        return Sent(request["path"], body, headers, request.get("form"))

    async def _answer(self, cell: Cell) -> Answer:
        plain_sent = self._sent(Case(cell, "end"), "")
        plain = await self._ask_plain(cell, plain_sent)
        if cell.answer == "whole":
            return Answer(plain, [])
        body = dict(plain_sent.body or {})
        if cell.api in ("chat", "completions"):
            body["stream_options"] = _ALL_USAGE
        told = await ask(self.behind_url, Sent(plain_sent.path, body, plain_sent.headers))
        return Answer(plain, events_of(told.body))

    def _agent(self, case: Case) -> str:
        return f"{case}, behind {self.behind_url}"

    async def _through(self, case: Case, answer: Answer) -> Seen:
        own = {"authorization": f"Bearer {self.key}", "user-agent": self._agent(case)}
        leave_after = None
        if case.cell.ending == "client_abort" and case.after is not None:
            leave_after = len(answer.first(answer.shown(case.after)))
        return await ask(
            self.box.url, self._sent(case, _words(case, case.after), **own), leave_after
        )

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
        tasks = [asyncio.ensure_future(ask(self.box.url, one, leave=leave)) for one in sent]
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
        """What the client would see without us, but for what the cell is known to lack."""
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

        return dict(wait_until(found, f"{len(agents)} usage records", 20))

    def _seen_wrong(self, case: Case, through: Seen, plain: Seen, answer: Answer) -> list[str]:
        expected = self.matrix.outcome(case.cell, case.point)["client"]
        wrong = []
        if through.end != expected["end"]:
            wrong.append(f"{case}: ends {through.end}")
        if expected["bytes"] == "same":
            if (through.status, through.end) != (plain.status, plain.end):
                wrong.append(f"{case}: {through.status} {through.end}, without us {plain}")
            for name in ("content-type", "content-length"):
                if through.headers.get(name) != plain.headers.get(name):
                    wrong.append(f"{case}: header {name}: {through.headers.get(name)}")
            if masked(through.body) != masked(plain.body):
                difference = f"{through.body.decode()!r}\n  without us {plain.body.decode()!r}"
                wrong.append(f"{case}: sees {difference}")
        if case.point == "end" and _shown(case.cell, through) != self.matrix.shown(case.cell):
            wrong.append(f"{case}: usage in {_shown(case.cell, through)}")
        return wrong

    def _charged_wrong(self, case: Case, record: Mapping[str, Any], answer: Answer) -> list[str]:
        outcome = self.matrix.outcome(case.cell, case.point)
        expected = {
            name: case.error if value == "error" else value
            for name, value in outcome["record"].items()
        }
        expected["source"] = outcome["charged"]["source"]
        for kind in ("prompt", "completion"):
            name = f"{kind}_tokens"
            expected[name] = _tokens(case, kind, outcome["charged"], record, answer)
        got = {name: record[name] for name in expected}
        if got == expected:
            return []
        return [f"{case}: {outcome['what']}\n  record   {got}\n  expected {expected}"]

    def _settled_wrong(self, records: list[dict[str, Any]]) -> list[str]:
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
            limits = httpx.get(f"{self.box.url}/v1/headgate/limits", headers=headers).json()
            used.update({one["count"]: one["used"] for one in limits["data"]})
            return used == expected

        try:
            wait_until(settled, "the settlements")
        except AssertionError:
            return [f"the limits have {used}, the records {expected}"]
        return []


def cases_of(matrix: Matrix, cell: Cell, answer: Answer) -> list[Case]:
    """The requests of one cell: its answer ends after each of its events in turn."""
    cases = []
    for point in matrix.points_of(cell):
        if point in ("end", "before"):
            errors = ERRORS if cell.ending == "upstream_error" else (None,)
            cases += [Case(cell, point, error=error) for error in errors]
        elif point in ("start", "middle"):
            cases.append(Case(cell, point, after=0))
        elif point == "event":
            cases += [Case(cell, point, after=after) for after in range(1, answer.last_word)]
        else:
            last, all_of_them = answer.last_word, len(answer.told)
            cases += [Case(cell, point, after=after) for after in range(last, all_of_them + 1)]
    return cases


def _leaves_before(case: Case) -> bool:
    return case.cell.ending == "client_abort" and case.point == "before"


def _words(case: Case, after: int | None) -> str:
    if case.error is not None:
        return f"status={case.error}"
    if case.point == "before":
        return "hang_up=0"
    return "" if after is None else f"{_WORDS[case.cell.ending]}={after}"


def _tokens(
    case: Case, kind: str, charged: Mapping[str, Any], record: Mapping[str, Any], answer: Answer
) -> int | None:
    """What the cell's word for these tokens comes to."""
    if charged["source"] is None:
        return None
    word = charged.get(kind, 0)
    so_far = progress(answer.told[: case.after or 0], _choices(case.cell))
    if word == "vllm":
        told = usage_of(_final(case.cell, answer))
        assert told is not None, case
        prompt, completion = prompt_and_completion(told)
        return prompt if kind == "prompt" else completion
    numbers = {
        0: 0,
        "seen": so_far.prompt if kind == "prompt" else so_far.completion,
        "events": so_far.events,
        "estimate": record["estimated_prompt_tokens"],
        "flat": FLAT_TOKENS,
    }
    return int(numbers[word])


def _choices(cell: Cell) -> int:
    several_of_each = cell.choices == "prompts" and cell.api == "completions"
    return 2 if cell.choices == "several" or several_of_each else 1


def _final(cell: Cell, answer: Answer) -> dict[str, Any]:
    if cell.answer == "whole":
        return dict(json.loads(answer.plain.body))
    return data_of(answer.told[answer.last_word - 1])


def _shown(cell: Cell, seen: Seen) -> str:
    """In which events of a complete answer there is usage."""
    if cell.answer == "whole":
        return "as_always" if b'"usage"' in seen.body else "no_event"
    events = events_of(seen.body)
    with_usage = [event for event in events if usage_of(data_of(event))]
    if cell.api in ("responses", "messages"):
        return "as_always" if with_usage else "no_event"
    if not with_usage:
        return "no_event"
    if len(with_usage) == len(events) - 1:
        return "every_event"
    return "last_event" if with_usage == [events[-2]] else "some"


async def _all(coroutines: list[Any]) -> list[Any]:
    """All of them, so many at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: Any) -> Any:
        async with gate:
            return await coroutine

    return await asyncio.gather(*(one(coroutine) for coroutine in coroutines))
