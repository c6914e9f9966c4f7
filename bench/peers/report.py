"""The tables of the results, and their place in docs/benchmarks.md."""

import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from bench.peers.measures import LONG_TOKENS, SHORT_TOKENS, Results
from bench.table import Cell, Table

_PLAIN = "plain"
_BEGIN, _END = "<!-- bench-peers: written by the bench -->", "<!-- bench-peers: end -->"
_PARTS = ("envoy", "services", "stores")


def report(results: Results, left_out: Mapping[str, str], rounds: int) -> str:
    """Markdown: when and where, the tables, and what was left out."""
    tables = (_short(results), _latency(results), _long(results), _against(results))
    lines = [
        f"{date.today():%d %B %Y}, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f}),"
        f" rounds: {rounds}.",
        "",
        *(table.markdown() for table in tables),
    ]
    lines += [f"- `{name}` is left out: {reason}." for name, reason in left_out.items()]
    return "\n".join(lines).rstrip() + "\n"


def write(file: Path, text: str) -> None:
    """Puts the text between the markers. Raises ValueError if the file has none."""
    document = file.read_text(encoding="utf-8")
    place = re.compile(f"(?<={re.escape(_BEGIN)}\n).*?(?={re.escape(_END)})", re.DOTALL)
    if not place.search(document):
        raise ValueError(f"{file} has no line {_BEGIN} with a line {_END} below it")
    file.write_text(place.sub(lambda _: f"\n{text}\n", document), encoding="utf-8")


def _short(results: Results) -> Table:
    plain = results[_PLAIN]["short"].total_us
    rows: list[tuple[Cell, ...]] = []
    for name, works in results.items():
        turns = works["short"]
        parts = [round(turns.us(part)) if part in turns.used_s else "" for part in _PARTS]
        above = turns.total_us - plain
        rows.append((name, *parts, round(above), above / plain, round(turns.best_per_s)))
    columns = ("stack", *_PARTS, "all above plain", "in units of plain", "requests/s")
    note = "A short request: 16 in flight, CPU in us a request, the most requests/s of a round."
    return Table("Short requests", columns, rows, note)


def _latency(results: Results) -> Table:
    plain = results[_PLAIN]["on time"]
    rows: list[tuple[Cell, ...]] = []
    for name, works in results.items():
        turns = works["on time"]
        added_ms = (turns.usual_p50_s - plain.usual_p50_s) * 1e3
        slow_ms = (turns.usual_p99_s - plain.usual_p99_s) * 1e3
        if "envoy" in turns.used_s:
            rows.append((name, added_ms, slow_ms))
    note = "200 requests/s begin on time. The medians of the rounds, less plain's, in ms."
    return Table("Added latency", ("stack", "p50", "p99"), rows, note)


def _long(results: Results) -> Table:
    plain_large = results[_PLAIN]["1 MB"].total_us
    plain_token = _token_us(results, _PLAIN)
    rows: list[tuple[Cell, ...]] = []
    for name, works in results.items():
        large = works["1 MB"]
        above = large.total_us - plain_large
        token = _token_us(results, name)
        units = (token - plain_token) / plain_token
        rows.append((name, round(above), above / plain_large, token - plain_token, units))
    columns = ("stack", "1 MB above plain", "in units of plain", "token above plain", "in units")
    note = (
        f"CPU of all parts in us. A token is the slope from {SHORT_TOKENS} to {LONG_TOKENS} tokens"
        f" of 40 streams; plain takes {plain_token:.1f}."
    )
    return Table("Large prompts and streamed tokens", columns, rows, note)


def _token_us(results: Results, name: str) -> float:
    works = results[name]
    more_us = works["long stream"].total_us - works["short stream"].total_us
    return more_us / (LONG_TOKENS - SHORT_TOKENS)


def _against(results: Results) -> Table:
    """Each stack's cost above plain for a short request, by each other's."""
    plain = results[_PLAIN]["short"].total_us
    above = {
        name: works["short"].total_us - plain for name, works in results.items() if name != _PLAIN
    }
    rows: list[tuple[Cell, ...]] = [
        (name, *(cost / other for other in above.values())) for name, cost in above.items()
    ]
    note = "CPU above plain of a short request: the row's by the column's."
    return Table("Each against each", ("stack", *above), rows, note)
