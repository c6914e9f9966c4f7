"""The table of drills in docs/alerts.md, between two markers."""

from collections.abc import Sequence
from pathlib import Path

from tests.drills.run import Outcome

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "alerts.md"
BEGIN, END = "<!-- drills: begin -->\n", "<!-- drills: end -->\n"
_HEAD = "| incident | told | after | over after | named |\n|---|---|---|---|---|\n"
_NAMED = ("model", "version", "tenant", "hook")


def row(rounds: Sequence[Outcome]) -> str:
    """One line of the table, with the longest times of all rounds of one incident."""
    incident = rounds[0].incident
    cells = [incident.what, "nothing", "", "", ""]
    told = [outcome.told for outcome in rounds if outcome.told is not None]
    over_s = [outcome.resolved_s for outcome in rounds if outcome.resolved_s is not None]
    if told:
        message = told[0][1]
        kind = "page" if incident.page else "ticket"
        labels = [message.label(name) for name in _NAMED if message.label(name) not in ("", "-")]
        cells[1:] = [
            f"{kind} `{message.label('alertname')}`",
            f"{max(after_s for after_s, _ in told):.0f} s",
            f"{max(over_s):.0f} s" if over_s else "-",
            ", ".join([incident.cause, *labels]),
        ]
    return "| " + " | ".join(cells) + " |\n"


def write(rows: dict[str, str]) -> None:
    """Replaces the rows of these incidents, and keeps those of others."""
    text = DOCUMENT.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    old = [line + "\n" for line in text[start:end].splitlines()[2:]]
    kept = {_incident(line): line for line in old} | {_incident(new): new for new in rows.values()}
    text = text[:start] + _HEAD + "".join(kept.values()) + text[end:]
    DOCUMENT.write_text(text, encoding="utf-8")


def _incident(line: str) -> str:
    return line.split("|")[1].strip()
