"""The program's entry: the command `headgate`, and `python -m headgate`."""

import sys

from headgate.core.errors import OperatorError
from headgate.core.packages import refuse_foreign_packages


def main() -> None:
    """Runs the command line. A foreign package in place of ours is one line and exit code 1."""
    try:
        refuse_foreign_packages()
    except OperatorError as error:
        sys.exit(f"headgate: {error}")
    from headgate.cli import main as run  # noqa: PLC0415 - it imports the packages checked above

    run()


if __name__ == "__main__":
    main()
