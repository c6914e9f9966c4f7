"""`make test-drills`: real faults on a real box, and what the pager gets.

`python -m tests.drills [--write] [INCIDENT...]` plays the incidents named, or all of them, one
after the other. `--write` puts the table into docs/alerts.md.
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
    bad, rows = 0, {}
    for name in options.incident or INCIDENTS:
        outcome = drill(INCIDENTS[name], tools)
        rows[name] = row(outcome)
        print(f"{name}: {rows[name]}", flush=True)
        for problem in outcome.problems:
            bad += 1
            print(f"{name}: {problem}", flush=True)
    if options.write:
        write(rows)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
