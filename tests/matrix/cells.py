"""The matrix of `cells.yaml`: its axes, and for each combination its outcome or its exclusion."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


@dataclass(frozen=True)
class Cell:
    """One combination of the axes, in the words of `cells.yaml`."""

    api: str
    answer: str
    usage: str
    ending: str
    choices: str
    vllm: str

    def __str__(self) -> str:
        return " ".join(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Matrix:
    """The contents of the file."""

    axes: Mapping[str, list[str]]
    points: Mapping[str, Mapping[str, list[str]]]
    requests: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, str]
    usage_fields: Mapping[str, Mapping[str, Any]]
    excluded: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    shows_usage: list[dict[str, Any]]
    differs: list[dict[str, Any]]
    extproc: Mapping[str, Any]
    servers: Mapping[str, list[str]]
    long: Mapping[str, Mapping[str, Any]]
    real: list[dict[str, Any]]

    def combinations(self) -> Iterator[Cell]:
        """Every combination of the axes, whether it exists or not."""
        return (Cell(*values) for values in product(*self.axes.values()))

    @cached_property
    def cells(self) -> list[Cell]:
        """The combinations that exist."""
        return [cell for cell in self.combinations() if self.exclusion(cell) is None]

    def groups(self) -> list[tuple[str, str]]:
        """Each API with each vLLM that it has cells for."""
        return sorted({(cell.api, cell.vllm) for cell in self.cells})

    def group(self, api: str, vllm: str) -> list[Cell]:
        """The cells of one of them."""
        return [cell for cell in self.cells if (cell.api, cell.vllm) == (api, vllm)]

    def exclusion(self, cell: Cell) -> dict[str, Any] | None:
        """The entry that says why this combination does not exist; None: it does."""
        return _first(self.excluded, cell)

    def points_of(self, cell: Cell) -> list[str]:
        """Where this cell's answer ends."""
        return self.points[cell.ending].get(cell.answer, [])

    def outcome(self, cell: Cell, point: str) -> dict[str, Any]:
        """The entry that says what is charged, recorded and seen. LookupError: there is none."""
        outcome = _first(self.outcomes, cell, point)
        if outcome is None:
            raise LookupError(f"no outcome of {cell}, {point}")
        return outcome

    def shown(self, cell: Cell) -> str:
        """In which events the client of a complete answer sees usage."""
        entry = _first(self.shows_usage, cell)
        assert entry is not None, cell
        return str(entry["usage"])

    def lacks(self, cell: Cell) -> str | None:
        """The member of its events that the client of this cell does not get."""
        entry = _first(self.differs, cell)
        return None if entry is None else str(entry["lacks"])

    def loses_tail(self, cell: Cell, point: str) -> bool:
        """Whether an answer that breaks off there loses its last events where ext_proc counts."""
        return _first(self.extproc["loses_tail"], cell, point) is not None

    def is_real(self, cell: Cell, point: str) -> bool:
        """Whether a real vLLM can be brought to it."""
        return _first(self.real, cell, point) is not None

    def body(self, cell: Cell) -> dict[str, Any]:
        """The JSON that a client of this cell sends."""
        request = self.requests[cell.api]
        stream = {"stream": True} if cell.answer == "stream" else {}
        choices = {} if cell.choices == "one" else request[cell.choices]
        model = {"model": self.models[cell.vllm]}
        return {**model, **request["body"], **choices, **stream, **self.usage_fields[cell.usage]}

    def form(self, cell: Cell) -> dict[str, str]:
        """The form that a client of this cell sends: its fields for usage have other names."""
        options = self.usage_fields[cell.usage].get("stream_options", {})
        usage = {f"stream_{name}": str(value) for name, value in options.items()}
        stream = {"stream": "true"} if cell.answer == "stream" else {}
        model = {"model": self.models[cell.vllm]}
        return {**model, **self.requests[cell.api]["form"], **stream, **usage}


@cache
def matrix() -> Matrix:
    """The matrix."""
    text = Path(__file__).with_name("cells.yaml").read_text()
    return Matrix(**YAML(typ="safe").load(text))


def _first(entries: list[dict[str, Any]], cell: Cell, point: str = "") -> dict[str, Any] | None:
    values = {**vars(cell), "point": point}
    return next((entry for entry in entries if _fits(entry["when"], values)), None)


def _fits(when: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    return all(
        values[axis] in (allowed if isinstance(allowed, list) else [allowed])
        for axis, allowed in when.items()
    )
