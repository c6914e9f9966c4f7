"""Writes random JSON answers, and notes their true numbers."""

import json
import random
import re
from dataclasses import dataclass, field
from typing import Any

from tests.tap.cases_file import FAKE_TIME_MS, Case

TEXTS = (
    "Hi",
    "é",
    "\u2028",
    '"usage":{"prompt_tokens":1}',
    "\\",
    'a"}]',
    "data: [DONE]",
    "\n\r\t",
    "😀",
    "{[",
)
ECHOES: tuple[Any, ...] = (
    {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "input_tokens": 3, "output_tokens": 4}},
    [{"usage": None}, {"properties": {"usage": {"type": "object"}}}],
    {'a"usage': 1, "error": {"message": "x"}, "choices": [{"index": 9}]},
    {"a": [{"model": "x"}], "choices": [{"model": "y"}]},
    "usage",
    "model",
    [],
    None,
)
NOISE = (
    ": ping\n",
    ': "usage": {[\n',
    "id: 7\n",
    "retry: 10\n",
    "\n",
    ": a\n: b\n\n",
)
SPACES = ("", " ", "\ndata: ", "  ")


@dataclass
class Writer:
    """Writes one answer and notes its true numbers."""

    chance: random.Random
    marked: str = ""
    usage: dict[str, str] = field(default_factory=dict)
    events: int = 0
    breaks: bool = False
    """Whether data may have several lines."""

    def space(self) -> str:
        space = self.chance.choice(SPACES) if self.chance.random() < 0.3 else ""
        return space if self.breaks or "\n" not in space else " "

    def value(self, value: Any) -> str:
        """JSON, with non-ASCII characters escaped or not."""
        return json.dumps(value, ensure_ascii=self.chance.random() < 0.5)

    def count(self) -> tuple[str, int | None]:
        """A count as it is written, and as it is seen: None if it is too large or no count."""
        if self.chance.random() < 0.02:
            odd = self.chance.choice(("1" * 16, "9" * 400, "-1", "1.5", "1e3", '"7"', "null"))
            return odd, None
        count = self.chance.choice((0, 1, 2, 13, 4096, 10**14))
        return str(count), count

    def object(self, members: list[tuple[str, str]], cut: str = "", marks: str = "«»") -> str:
        """An object with members in this order; `marks` are around the member that is cut out."""
        opened = self.space()
        text = "{" + opened
        for number, (key, value) in enumerate(members):
            is_last = number == len(members) - 1
            member = f'"{key}"{self.space()}:{self.space()}{value}'
            comma, after = ("", "") if is_last else (",", self.space())
            if key != cut:
                is_next_cut = not is_last and members[number + 1][0] == cut
                text += member + (f"{marks[0]},{after}" if is_next_cut else comma + after)
            elif number == 0 and not is_last:
                text += f"{marks[0]}{member}{comma}{after}{marks[1]}"
            elif number == 0:
                text += f"{marks[0]}{member}{marks[1]}"
            else:
                text += f"{member}{marks[1]}{comma}{after}"
        return text + self.space() + "}"

    def noise(self) -> str:
        """The lines that may precede an event's data without a meaning."""
        return self.chance.choice(NOISE) if self.chance.random() < 0.2 else ""

    def event(self, data: str, name: str = "", with_noise: bool = True) -> str:
        """Writes an event, and returns it without marks and the whole events before it."""
        noise = self.noise() if with_noise else ""
        named = f"event: {name}\n" if name else self.chance.choice(("", "", "event: message\n"))
        event = f"{noise}{named}data:{self.chance.choice((' ', ''))}{data}\n\n"
        self.marked += event
        return re.sub("[«»‹›]", "", event[:-2].rpartition("\n\n")[2] + "\n\n")

    def set(self, key: str, value: int | None) -> None:
        if value is not None:
            self.usage[key] = str(value)

    def finished(self, name: str, api: str, n: int, kind: str) -> Case:
        self.usage |= {"status": "200", "events": str(self.events)}
        if self.events:
            self.usage["first_event_ms"] = str(FAKE_TIME_MS)
        return Case(name, api, n, kind, self.marked, self.usage)
