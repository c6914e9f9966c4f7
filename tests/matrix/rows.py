"""The matrix as the table of docs/metering.md."""

from typing import Any

from tests.matrix.cells import matrix

_PROMPT = {
    "vllm": "vLLM's numbers",
    "seen": "the prompt so far",
    "estimate": "the prompt's estimate",
    "flat": "the policy's price",
    "seconds": "vLLM's seconds at their price",
}
_COMPLETION = {"seen": " + the completion so far", "events": " + 1 for each event with output"}
_CLIENT = {
    "same": {"whole": "vLLM's answer", "cut": "vLLM's answer, cut there", "left": ""},
    "ours": {"whole": "Headgate's answer"},
    "none": {"left": ""},
}


def rows() -> list[str]:
    """A line of the table for each outcome, in the order of the file."""
    matrix_ = matrix()
    return [_row(outcome) for outcome in [*matrix_.outcomes, matrix_.extproc["nothing_passed"]]]


def _row(outcome: dict[str, Any]) -> str:
    charged, record, client = outcome["charged"], outcome["record"], outcome["client"]
    source = charged["source"]
    if source in (None, "refund"):
        tokens = "nothing"
    else:
        tokens = _PROMPT[charged["prompt"]] + _COMPLETION.get(charged["completion"], "")
    status = {None: "none", "error": "that error"}.get(record["status"], record["status"])
    sees = _CLIENT[client["bytes"]][client["end"]]
    flags = ", ".join(f"`{flag}`" for flag in record["flags"])
    named = f"`{source}`" if source else "null"
    return f"| {outcome['what']} | {sees} | {tokens} | {named} | {status} | {flags} |"
