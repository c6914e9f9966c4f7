"""The command line: reads arguments, calls the program, prints. Nothing is decided here."""

import logging
import os
import sys

import click

import headgate
from headgate.cli.adapters import adapters_group
from headgate.cli.cache import cache_group
from headgate.cli.canary import canary_group
from headgate.cli.checking import check_command, replay_command
from headgate.cli.completion import completion_command
from headgate.cli.database import database_group
from headgate.cli.keys import keys_group
from headgate.cli.ledger import ledger_group
from headgate.cli.login import login_command, logout_command
from headgate.cli.managing import audit_group, tenants_group
from headgate.cli.planning import curve_command, plan_command
from headgate.cli.reconcile import reconcile_command
from headgate.cli.rendering import render_group
from headgate.cli.report import report_group
from headgate.cli.repricing import correct_command, reprice_command, repricing_command
from headgate.cli.running import serve_command, simulate_command, up_command
from headgate.cli.usage import usage_group
from headgate.cli.users import tokens_group, users_group
from headgate.cli.watching import doctor_command, top_command
from headgate.cli.weights import weights_command
from headgate.core.errors import OperatorError
from headgate.policy import PolicyError

_STDERR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(headgate.__version__, prog_name="headgate", message="%(prog)s %(version)s")
def cli() -> None:
    """Identity, quotas and metering for LLM traffic on Envoy and Istio."""


for _command in (
    up_command,
    serve_command,
    check_command,
    replay_command,
    login_command,
    logout_command,
    keys_group,
    adapters_group,
    tenants_group,
    users_group,
    tokens_group,
    audit_group,
    cache_group,
    usage_group,
    database_group,
    ledger_group,
    report_group,
    render_group,
    canary_group,
    plan_command,
    curve_command,
    doctor_command,
    top_command,
    simulate_command,
    completion_command,
):
    cli.add_command(_command)
ledger_group.add_command(reconcile_command)
ledger_group.add_command(correct_command)
ledger_group.add_command(reprice_command)
ledger_group.add_command(repricing_command)
ledger_group.add_command(weights_command)


def main() -> None:
    """Runs the command line. A mistake of the operator is one line and exit code 1."""
    _open_standard_streams()
    logging.basicConfig(level=logging.WARNING, format="headgate: %(message)s")
    try:
        cli()
    except PolicyError as error:  # each line begins with the file's name and line
        click.echo(str(error), err=True)
        sys.exit(1)
    except OperatorError as error:
        click.echo(f"headgate: {error}", err=True)
        sys.exit(1)


def _open_standard_streams() -> None:
    """Opens the standard streams that are closed (`>&-`).

    Else a socket would get the number of one, and output would be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
