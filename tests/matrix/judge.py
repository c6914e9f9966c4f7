"""Finds what is wrong with a request of a cell: in its answer, or in its record."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.matrix.cases import Answer, Case, choices_of
from tests.matrix.cells import Cell, Matrix
from tests.matrix.client import Seen
from tests.matrix.oracle import (
    data_of,
    events_of,
    masked,
    progress,
    prompt_and_completion,
    usage_of,
)

FLAT_TOKENS = 50
"""The price of a request of `tokenize` or `translations` in the policy of the boxes."""
TOKENS_PER_SECOND = 40
"""The price of a second of `transcriptions`."""


@dataclass(frozen=True)
class Played:
    """A request and what came of it: `through` a box, `plain` straight from the upstream, `record`
    the usage record, `answer` the complete answer to its cell."""

    case: Case
    through: Seen
    plain: Seen
    record: Mapping[str, Any]
    answer: Answer


def problems(
    matrix: Matrix,
    played: Played,
    counting: str,
    read: Callable[[bytes], object] = masked,
) -> list[str]:
    """All that differs from what the matrix says; bodies are the same if `read` reads the same."""
    case = played.case
    headers = ["content-type", "content-length"]
    if counting == "extproc":
        headers.remove(matrix.extproc["loses_header"])
        if matrix.loses_tail(case.cell, case.point):
            if played.through.status == matrix.extproc["nothing_passed"]["record"]["status"]:
                return _problems_of(matrix, played, matrix.extproc["nothing_passed"], headers, read)
            judged = []
            for passed in _as_far_as_passed(played):
                outcome = matrix.outcome(case.cell, passed.case.point)
                judged.append(_problems_of(matrix, passed, outcome, headers, read))
            return min(judged, key=len)
    outcome = matrix.outcome(case.cell, case.point)
    return _problems_of(matrix, played, outcome, headers, read)


def _problems_of(
    matrix: Matrix,
    played: Played,
    outcome: Mapping[str, Any],
    headers: list[str],
    read: Callable[[bytes], object],
) -> list[str]:
    case = played.case
    wrong = [*_seen(outcome["client"], played, headers, read), *_recorded(outcome, played)]
    if case.point == "end" and _shown(case.cell, played.through) != matrix.shown(case.cell):
        wrong.append(f"usage in {_shown(case.cell, played.through)}")
    return [f"{case} ({outcome['what']}): {problem}" for problem in wrong]


def _as_far_as_passed(played: Played) -> list[Played]:
    """The same request, had vLLM broken off after the last event that passed. The client does not
    see whether one with usage that is taken out came, too: then there are two."""
    case, answer = played.case, played.answer
    if case.point == "middle":
        body = played.plain.body[: len(played.through.body)]
        return [replace(played, plain=replace(played.plain, body=body))]
    passed = len(events_of(played.through.body))
    plain = replace(played.plain, body=answer.first(passed))
    found = []
    for after in range(len(answer.vllm_events) + 1):
        if answer.shown(after) == passed:
            point = "start" if after == 0 else "event" if after < answer.last_word else "last"
            ended = replace(case, point=point, after=after)
            found.append(replace(played, case=ended, plain=plain))
    return found


def _seen(
    expected: Mapping[str, str],
    played: Played,
    headers: list[str],
    read: Callable[[bytes], object],
) -> list[str]:
    through, plain = played.through, played.plain
    wrong = []
    if through.end != expected["end"]:
        wrong.append(f"ends {through.end}, not {expected['end']}")
    if expected["bytes"] != "same":
        return wrong
    if through.status != plain.status:
        wrong.append(f"status {through.status}, without us {plain.status}")
    if through.end != plain.end:
        wrong.append(f"ends {through.end}, without us {plain.end}")
    for name in headers:
        if (got := _header(through, name)) != (without_us := _header(plain, name)):
            wrong.append(f"{name} {got}, not {without_us}")
    if read(through.body) != read(plain.body):
        wrong.append(f"sees\n{through.body.decode()}\nwithout us\n{plain.body.decode()}")
    return wrong


def _header(seen: Seen, name: str) -> str | None:
    """A header's value; of a length what the body lacks, as its times vary in their digits."""
    value = seen.headers.get(name)
    if value is None or name != "content-length":
        return value
    return f"{int(value) - len(seen.body)} bytes above the body's"


def _recorded(outcome: Mapping[str, Any], played: Played) -> list[str]:
    expected = {
        name: played.case.error if value == "error" else value
        for name, value in outcome["record"].items()
    }
    expected["source"] = outcome["charged"]["source"]
    for kind in ("prompt", "completion"):
        expected[f"{kind}_tokens"] = _tokens(kind, outcome["charged"], played)
    got = {name: played.record[name] for name in expected}
    return [] if got == expected else [f"\n  record   {got}\n  expected {expected}"]


def _tokens(kind: str, charged: Mapping[str, Any], played: Played) -> int | None:
    """The number that the matrix means by its word for these tokens."""
    case, answer = played.case, played.answer
    if charged["source"] is None:
        return None
    word = charged.get(kind, 0)
    if word == "seconds":
        return int(json.loads(answer.plain.body)["usage"]["seconds"]) * TOKENS_PER_SECOND
    if word == "vllm":
        usage = usage_of(_final(case.cell, answer))
        assert usage is not None, case
        prompt, completion = prompt_and_completion(usage)
        return prompt if kind == "prompt" else completion
    so_far = progress(answer.vllm_events[: case.after or 0], choices_of(case.cell))
    numbers = {
        0: 0,
        "seen": so_far.prompt if kind == "prompt" else so_far.completion,
        "events": so_far.events,
        "estimate": played.record["estimated_prompt_tokens"],
        "flat": FLAT_TOKENS,
    }
    return int(numbers[word])


def _final(cell: Cell, answer: Answer) -> dict[str, Any]:
    if cell.answer == "whole":
        return dict(json.loads(answer.plain.body))
    return data_of(answer.vllm_events[answer.last_word - 1])


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
