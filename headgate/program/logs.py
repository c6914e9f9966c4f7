"""The log of the program: one line for each event, on standard error."""

import logging


def start_logging() -> None:
    """From now on, warnings and errors are written. Each process of the program calls it once."""
    logging.basicConfig(level=logging.WARNING, format="headgate: %(message)s")
