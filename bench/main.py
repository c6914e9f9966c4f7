"""Runs benches and prints their tables."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from bench.table import Table

Bench: TypeAlias = Callable[[], Awaitable[Sequence[Table]]]


def run(benches: Mapping[str, Bench], arguments: Sequence[str] | None = None) -> None:
    """The command line of these benches: runs those named, or all, one after the other."""
    parser = argparse.ArgumentParser(description="Prints Markdown tables of what was measured.")
    parser.add_argument("names", nargs="*", metavar="BENCH", help=", ".join(benches))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in benches]:
        parser.error(f"no bench is called {unknown[0]}; there are {', '.join(benches)}")
    figures: dict[str, object] = {}
    for name in options.names or benches:
        tables = asyncio.run(_measured(benches[name]))
        figures[name] = [table.plain() for table in tables]
        print("\n".join(table.markdown() for table in tables), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


async def _measured(bench: Bench) -> Sequence[Table]:
    return await bench()
