"""`headgate report`: what a month cost, for people, spreadsheets and billing systems."""

import sys
from pathlib import Path

import click
import msgspec

from headgate.cli.api import calls_api, segment
from headgate.cli.options import Member
from headgate.ledger.showback.formats import FILES, rendered
from headgate.ledger.showback.month import DEADLINE_S
from headgate.ledger.showback.values import By, Statement
from headgate.management.client import ApiClient

_FORMATS = ("table", *FILES)


@click.group("report")
def report_group() -> None:
    """The cost of a month."""


@report_group.command("month")
@click.argument("month")
@calls_api
@click.option("--by", "group", type=Member(By), default=By.TENANT.value, show_default=True)
@click.option("--tenant", help="Only the part of this tenant.")
@click.option("--format", "kind", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to [standard output]."
)
def report_month_command(
    month: str, *, api: ApiClient, group: By, tenant: str | None, kind: str, output: Path | None
) -> None:
    """Show what MONTH cost, such as 2026-10: a closed month always the same."""
    path = f"/reports/{segment(month)}"
    if tenant is not None:
        path = f"/tenants/{segment(tenant)}{path}"
    statement = _statement(api.call("GET", path, timeout_s=DEADLINE_S))
    data = rendered(statement, group, tenant, kind)
    if output is None:
        sys.stdout.buffer.write(data)
    else:
        output.write_bytes(data)


@report_group.command("close")
@click.argument("month")
@calls_api
def report_close_command(month: str, *, api: ApiClient) -> None:
    """Close MONTH for good. A later record is a correction in the next month."""
    statement = _statement(
        api.call("POST", f"/reports/{segment(month)}/close", timeout_s=DEADLINE_S)
    )
    assert statement.closing is not None, "the API has closed it"  # noqa: S101
    click.echo(f"closed {month}, SHA-256 {statement.closing.checksum}")


def _statement(answer: object) -> Statement:
    return msgspec.convert(answer, Statement)
