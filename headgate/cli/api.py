"""The options of the commands that call the management API, and the tables of its answers."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from headgate.cli.options import FILE
from headgate.core.clock import SystemClock
from headgate.management.client import ApiClient
from headgate.management.client_tokens import (
    is_on_this_machine,
    kept_logins,
    token_of_login,
)
from headgate.management.login import read_token

DEFAULT_API = "http://127.0.0.1:8082"
BOX_TOKEN = Path("operator-token")
"""The file of the operator token, as docs/api.md starts a box."""
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Prints JSON, not a table.")


API = click.option(
    "--api", "url", envvar="HEADGATE_API", default=DEFAULT_API, show_default=True, metavar="URL"
)
CA = click.option(
    "--ca", type=FILE, help="The authorities of the API's certificate [the system's]."
)


def calls_api(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of the API, and passes it a client as `api`."""

    @API
    @click.option(
        "--token-file",
        envvar="HEADGATE_TOKEN_FILE",
        type=FILE,
        help="Holds the operator token, or a token of an issuer [the token of headgate login].",
    )
    @CA
    @wraps(command)
    def run(*, url: str, token_file: Path | None, ca: Path | None, **options: Any) -> None:
        command(api=ApiClient(url, _token(url, token_file), ca), **options)

    return run


def _token(url: str, token_file: Path | None) -> str:
    """The token of the file, else of the login, else of the box that runs in this folder.

    The file of such a box goes to this machine only. Raises OperatorError.
    """
    if token_file is not None:
        return read_token(token_file)
    logins = kept_logins()
    if logins.get(url) is None and is_on_this_machine(url) and BOX_TOKEN.is_file():
        return read_token(BOX_TOKEN)
    return token_of_login(url, logins, SystemClock())


def show(rows: Iterable[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Prints rows as JSON, or as a table of these columns."""
    listed = list(rows)
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    table = [list(columns), *([_cell(row[name]) for name in columns] for row in listed)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        click.echo("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def segment(text: str) -> str:
    """A name as one segment of a path, whatever is in it."""
    return quote(text, safe="")


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(map(str, value)) or "-"
        case _:
            return str(value)
