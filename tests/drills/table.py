"""The table of drills in docs/alerts.md, between two markers."""

from pathlib import Path

from tests.drills.run import Outcome

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "alerts.md"
BEGIN, END = "<!-- drills: begin -->\n", "<!-- drills: end -->\n"
_HEAD = "| incident | told | after | over after | named |\n|---|---|---|---|---|\n"
_NAMED = ("model", "version", "tenant", "hook")


def row(outcome: Outcome) -> str:
    """One line of the table."""
    told = outcome.told
    cells = [outcome.incident.what, "nothing", "", "", ""]
    if told is not None:
        after_s, message = told
        kind = "page" if outcome.incident.page else "ticket"
        labels = [message.label(name) for name in _NAMED if message.label(name) not in ("", "-")]
        cells[1:] = [
            f"{kind} `{message.label('alertname')}`",
            f"{after_s:.0f} s",
            "-" if outcome.resolved_s is None else f"{outcome.resolved_s:.0f} s",
            ", ".join([outcome.incident.cause, *labels]),
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
