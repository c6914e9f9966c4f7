"""`make test-drills`: real faults on a real box, and what the pager gets.

`python -m tests.drills [--write] [INCIDENT...]` plays the incidents named, or all of them, one
after the other. `--write` puts the rows of those that went right into docs/alerts.md.
"""

import argparse
import sys

from tests.drills.incidents import INCIDENTS
from tests.drills.monitoring import MissingToolError, find_tools
from tests.drills.run import drill
from tests.drills.table import row, write


def main(arguments: list[str]) -> int:
    """0 if each incident was told as it must be."""
    parser = argparse.ArgumentParser(prog="tests.drills")
    parser.add_argument("--write", action="store_true", help="put the table into docs/alerts.md")
    parser.add_argument("incident", nargs="*", help=", ".join(INCIDENTS))
    options = parser.parse_args(arguments)
    try:
        tools = find_tools()
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 1
    rows: dict[str, str] = {}
    names = options.incident or list(INCIDENTS)
    for name in names:
        outcome = drill(INCIDENTS[name], tools)
        line = row(outcome)
        print(f"{name}: {line}", end="", flush=True)
        for problem in outcome.problems:
            print(f"{name}: {problem}", flush=True)
        if not outcome.problems:
            rows[name] = line
    if options.write:
        write(rows)
    return 0 if len(rows) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
