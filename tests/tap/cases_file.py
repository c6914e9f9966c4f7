"""The cases in `cases/*.yaml`: the upstream's bytes, the client's bytes, and the usage."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML

FOLDER = Path(__file__).parent / "cases"
CLIENT_USAGES = ("none", "final", "continuous", "untouched")
LINE_ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}
_MARKS = re.compile("[«»‹›]|⟦.*?⟧", re.DOTALL)
_LESS_THAN_CONTINUOUS = re.compile("«.*?»", re.DOTALL)
_LESS_THAN_FINAL = re.compile("‹.*?›", re.DOTALL)
_ADDED_FOR_FINAL = re.compile("⟦(.*?)⟧", re.DOTALL)
FAKE_TIME_MS = 1700000000123


@dataclass(frozen=True)
class Case:
    """One answer; `marked` is its text, with marks around the parts that are taken out or added."""

    name: str
    api: str
    n: int
    kind: str
    marked: str
    usage: dict[str, str]
    more: dict[str, str] = field(default_factory=dict)

    def sent(self, line_end: str = "\n") -> bytes:
        """The upstream's bytes."""
        return _MARKS.sub("", self.marked).replace("\n", line_end).encode()

    def seen(self, client_usage: str, line_end: str = "\n") -> bytes:
        """The client's bytes."""
        text = self.marked
        if client_usage == "final":
            text = _ADDED_FOR_FINAL.sub(r"\1", text)
        if client_usage in ("none", "final"):
            text = _LESS_THAN_CONTINUOUS.sub("", text)
        if client_usage == "none":
            text = _LESS_THAN_FINAL.sub("", text)
        return _MARKS.sub("", text).replace("\n", line_end).encode()

    def headers(self, client_usage: str) -> dict[str, str]:
        """The request headers that the rig turns into metadata."""
        return {
            "x-client-usage": client_usage,
            "x-api": self.api,
            "x-n": str(self.n),
            "x-kind": self.kind,
            **self.more,
        }


def load(file: str) -> list[Case]:
    """All cases of one file."""
    entries = YAML(typ="safe").load((FOLDER / file).read_text(encoding="utf-8"))
    cases = []
    for entry in entries:
        usage = {key: str(value) for key, value in entry["usage"].items()} | {"status": "200"}
        if usage["events"] != "0":
            usage["first_event_ms"] = str(FAKE_TIME_MS)
        kind = "text/event-stream; charset=utf-8" if "stream" in entry else "application/json"
        cases.append(
            Case(
                name=entry["name"],
                api=entry["api"],
                n=entry.get("n", 1),
                kind=entry.get("kind", kind),
                marked=entry["stream"] if "stream" in entry else entry["body"],
                usage=usage,
                more={"x-per-second": str(entry["per_second"])} if "per_second" in entry else {},
            )
        )
    return cases
