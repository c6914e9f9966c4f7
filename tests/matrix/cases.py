"""The requests of a cell: its answer ends after each of vLLM's events in turn."""

from dataclasses import dataclass

from tests.matrix.cells import Cell, Matrix
from tests.matrix.client import Seen
from tests.matrix.oracle import events_of, is_last_word

ERRORS = (400, 503)
"""The statuses with which vLLM answers where a cell asks for an error."""


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
    """The complete answer to a cell.

    `plain` is the answer without us; `vllm_events` are vLLM's own when asked for all usage.
    """

    plain: Seen
    vllm_events: list[bytes]

    @property
    def last_word(self) -> int:
        """After how many events the final usage has passed; without any, all but the end mark."""
        words = (index for index, event in enumerate(self.vllm_events) if is_last_word(event))
        return 1 + max(words, default=len(self.vllm_events) - 2)

    def shown(self, after: int) -> int:
        """How many of its own events a client has seen after this number of vLLM's."""
        hides = len(self.vllm_events) > len(events_of(self.plain.body))
        return after - (hides and after >= self.last_word)

    def first(self, events: int) -> bytes:
        """The first of its client's own events."""
        return b"".join(events_of(self.plain.body)[:events])


def cases_of(matrix: Matrix, cell: Cell, answer: Answer, *, every_event: bool) -> list[Case]:
    """The requests of one cell. Unless `every_event`, the answers with several choices end only
    after the first and the last event of each point."""
    cases = []
    for point in matrix.points_of(cell):
        if point in ("end", "before"):
            errors = ERRORS if cell.ending == "upstream_error" else (None,)
            cases += [Case(cell, point, error=error) for error in errors]
        elif point in ("start", "middle"):
            cases.append(Case(cell, point, after=0))
        else:
            last, all_of_them = answer.last_word, len(answer.vllm_events)
            events = range(1, last) if point == "event" else range(last, all_of_them + 1)
            if cell.choices != "one" and not every_event:
                events = range(events[0], events[-1] + 1, max(1, len(events) - 1))
            cases += [Case(cell, point, after=after) for after in events]
    return cases


def choices_of(cell: Cell) -> int:
    """How many choices each of its prompts has (`n`)."""
    several_of_each = cell.choices == "prompts" and cell.api == "completions"
    return 2 if cell.choices == "several" or several_of_each else 1
