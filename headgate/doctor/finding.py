"""One thing that was looked at, and how it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """`PROBLEM` keeps requests from being served, limited or recorded; `NOTE` may do so later."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """A part, its state, and a sentence. If it is not OK, the sentence ends with what to do."""

    part: str
    state: State
    text: str

    def line(self) -> str:
        return f"{self.state:<8} {self.part}: {self.text}"


def ok(part: str, text: str) -> Finding:
    """The part is as it should be."""
    return Finding(part, State.OK, text)


def note(part: str, text: str) -> Finding:
    """The part works, and may stop to."""
    return Finding(part, State.NOTE, text)


def problem(part: str, text: str) -> Finding:
    """The part does not work."""
    return Finding(part, State.PROBLEM, text)


def has_problem(findings: Sequence[Finding]) -> bool:
    return any(finding.state is State.PROBLEM for finding in findings)
