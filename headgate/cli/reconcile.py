"""`headgate ledger reconcile`: the ledger beside vLLM's own counters."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from headgate.cli.api import show
from headgate.cli.options import DATABASE_PASSWORD, FILE
from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.database.address import DatabaseAddress, database_address
from headgate.database.connection import DatabaseAwayError, connected
from headgate.ledger.engine_counters import EngineTokens, read_engines
from headgate.ledger.reconcile import BOUND_PERCENT, Compared, compare, exposition_of, read_ledger
from headgate.ledger.reconciled import OverlapError, keep_statement

UNEXPLAINED = 3
"""The exit code if a pod's unexplained part is above the bound."""
_COLUMNS = (
    *("pod", "model", "vllm_prompt", "ledger_prompt", "vllm_completion", "ledger_completion"),
    *("difference", "explained", "unexplained"),
)
_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%SZ"])


@click.command("reconcile")
@click.option("--from", "begin", type=_TIME, required=True, help="Such as 2026-10-01T00:00:00Z.")
@click.option("--to", "end", type=_TIME, required=True, help="The time before which they ended.")
@click.option("--prometheus", metavar="URL", required=True, help="It scrapes vLLM's pods.")
@click.option("--database", metavar="URL", required=True, help="The ledger's, as of `import`.")
@DATABASE_PASSWORD
@click.option(
    "--bound-percent",
    type=click.FloatRange(min=0),
    default=BOUND_PERCENT,
    show_default=True,
    help="How much of a pod's tokens may be unexplained.",
)
@click.option("--metrics-file", type=FILE, help="Writes the statement there, for an alert.")
@click.option(
    "--keep", is_flag=True, help="Keeps the statement for the console's page of the month."
)
def reconcile_command(
    *,
    begin: datetime,
    end: datetime,
    prometheus: str,
    database: str,
    database_password_file: Path | None,
    bound_percent: float,
    metrics_file: Path | None,
    keep: bool,
) -> None:
    """Compare the ledger with vLLM's counters; the exit code is 3 above the bound."""
    begin, end = begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    if begin >= end:
        raise click.UsageError("--from must be before --to")
    address = database_address(database, database_password_file)
    engines = asyncio.run(read_engines(prometheus, begin, end))
    lines = _statement(address, (begin, end), engines, keep=keep)
    show(map(_row, lines), _COLUMNS, as_json=False)
    if metrics_file is not None:
        _write(metrics_file, exposition_of(lines, SystemClock().now_s()))
    above = [one.pod for one in lines if not one.is_within(bound_percent)]
    if above:
        click.echo(f"headgate: unexplained above the bound: {', '.join(above)}", err=True)
        sys.exit(UNEXPLAINED)


def _statement(
    address: DatabaseAddress,
    span: tuple[datetime, datetime],
    engines: Mapping[str, EngineTokens],
    *,
    keep: bool,
) -> Sequence[Compared]:
    async def compared() -> Sequence[Compared]:
        async with connected(address) as connection:
            lines = compare(engines, await read_ledger(connection, *span))
            if keep:
                now = datetime.fromtimestamp(SystemClock().now_s(), UTC)
                await keep_statement(connection, span, now, lines)
            return lines

    try:
        return asyncio.run(compared())
    except DatabaseAwayError as error:
        raise OperatorError(f"the database is away: {error}") from None
    except OverlapError as error:
        raise OperatorError(str(error)) from None


def _write(path: Path, text: str) -> None:
    """In one step: a collector reads the file at any time."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise OperatorError(f"{path}: cannot be written ({error.strerror})") from None


def _row(one: Compared) -> dict[str, object]:
    values: Sequence[object] = (
        *(one.pod, one.engine.model, one.engine.prompt, one.ledger.prompt),
        *(one.engine.completion, one.ledger.completion),
        *(one.difference, one.explained, one.unexplained),
    )
    return dict(zip(_COLUMNS, values, strict=True))
