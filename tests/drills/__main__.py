"""`make test-drills`: real faults on a real box, and what the pager gets.

`python -m tests.drills [--write] [INCIDENT...]` plays the incidents named, or all of them.
`--write` puts the rows of those that went right into docs/alerts.md.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.drills.incidents import INCIDENTS
from tests.drills.monitoring import MissingToolError, Tools, find_tools
from tests.drills.run import Outcome, drill
from tests.drills.table import row, write


def main(arguments: list[str]) -> int:
    """0 if each incident was told as it must be."""
    parser = argparse.ArgumentParser(prog="tests.drills")
    parser.add_argument("--write", action="store_true", help="put the table into docs/alerts.md")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is played [1]")
    parser.add_argument("--jobs", type=int, default=1, help="how many are played at once [1]")
    parser.add_argument("incident", nargs="*", help=", ".join(INCIDENTS))
    options = parser.parse_args(arguments)
    try:
        tools = find_tools()
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 1
    names = options.incident or list(INCIDENTS)
    rows: dict[str, str] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        played = [(name, pool.submit(_rounds, name, options.rounds, tools)) for name in names]
        for name, future in played:
            if failure := future.exception():  # it could not be played: the others count
                print(f"{name}: {failure}", flush=True)
            elif _shown(name, future.result()):
                rows[name] = row(future.result())
    if options.write:
        write(rows)
    return 0 if len(rows) == len(names) else 1


def _rounds(name: str, count: int, tools: Tools) -> list[Outcome]:
    return [drill(name, tools) for _ in range(count)]


def _shown(name: str, rounds: Sequence[Outcome]) -> bool:
    """Prints what each round showed; whether all went right."""
    for outcome in rounds:
        print(f"{name}: {row([outcome])}", end="", flush=True)
        for problem in outcome.problems:
            print(f"{name}: {problem}", flush=True)
    return not any(outcome.problems for outcome in rounds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
