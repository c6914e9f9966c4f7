"""`headgate completion`: the script by which a shell completes commands and options."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
_PROGRAM = "headgate"
_VARIABLE = "_HEADGATE_COMPLETE"
"""The variable by which click's script asks the program; click makes its name of the program's."""


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 - click has each of SHELLS
    click.echo(completion(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())
