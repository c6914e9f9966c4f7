"""The command `headgate`, which tries a version that is down again after two seconds."""

from unittest.mock import patch

from headgate.cli import cli
from tests.patience import patient

if __name__ == "__main__":
    with patient(), patch("headgate.placement.outages.HOLD_S", 2.0):
        cli(prog_name="headgate")
