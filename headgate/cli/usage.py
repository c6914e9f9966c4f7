"""`headgate usage`: searches the requests of the ledger."""

import csv
import json
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any

import click

from headgate.cli.api import calls_api, show
from headgate.ledger.cells import safe_cell
from headgate.ledger.usage_lines import FIELDS
from headgate.management.client import ApiClient

_COLUMNS = (
    *("time", "tenant", "user", "model", "status", "limit", "prompt_tokens", "completion_tokens"),
    *("cost", "request_id"),
)


@click.group("usage")
def usage_group() -> None:
    """The requests of the ledger."""


@usage_group.command("search")
@calls_api
@click.option("--tenant", help="The tenant [all of them, or your only one].")
@click.option("--user", help="The user.")
@click.option("--key", help="The id of the key.")
@click.option("--model", help="The model, by its name in the policy.")
@click.option("--ip", help="The client's address.")
@click.option("--status", type=int, help="The status that the client got.")
@click.option("--refused-by", metavar="LIMIT", help="The limit that refused the request.")
@click.option("--request-id", metavar="ID", help="The client's `x-request-id`.")
@click.option("--from", "begin", metavar="TIME", help="The first end, such as 2026-10-01T00:00Z.")
@click.option("--to", "end", metavar="TIME", help="The time before which requests ended.")
@click.option("--rows", type=click.IntRange(min=1), help="How many at most [100 in a table, all].")
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table",
    show_default=True, help="What is printed; the others have every field.",
)  # fmt: skip
def usage_search_command(
    *,
    api: ApiClient,
    begin: str | None,
    end: str | None,
    rows: int | None,
    form: str,
    **wanted: Any,
) -> None:
    """Find requests, the newest first."""
    found = api.rows("/usage", **wanted, **{"from": begin, "to": end})
    if form == "table":
        show(islice(found, rows or 100), _COLUMNS, as_json=False)
    elif form == "csv":
        _print_csv(islice(found, rows))
    else:
        for row in islice(found, rows):
            click.echo(json.dumps(row, ensure_ascii=False))


def _print_csv(rows: Iterable[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(FIELDS)
    for row in rows:
        writer.writerow([safe_cell(_text(row[name])) for name in FIELDS])


def _text(value: object) -> object:
    """A list or labels as JSON, and all else as it is."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value
