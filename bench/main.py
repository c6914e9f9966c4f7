"""Runs benches and prints their tables."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench.table import Table

Bench = Callable[[], Awaitable[Sequence[Table]]]


def run(*benches: Bench, arguments: Sequence[str] | None = None) -> None:
    """The command line of one bench or several: runs them one after the other."""
    parser = argparse.ArgumentParser(description="Prints Markdown tables of what was measured.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    json_file: Path | None = parser.parse_args(arguments).json
    tables: list[Table] = []
    for bench in benches:
        for table in asyncio.run(_measured(bench)):
            tables.append(table)
            print(table.markdown(), flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps([table.plain() for table in tables], indent=2) + "\n")


async def _measured(bench: Bench) -> Sequence[Table]:
    return await bench()
