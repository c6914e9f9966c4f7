"""`headgate canary`: a new version beside the one in use."""

import asyncio
import re
import sys
from collections.abc import Callable

import click

from headgate.canary.compare import Thresholds, Verdict, compare, outcome
from headgate.canary.queries import By, ModelPart
from headgate.canary.reader import read
from headgate.canary.report import as_json, as_table
from headgate.cli.options import Member
from headgate.core.errors import OperatorError

Check = Callable[[click.Context, click.Parameter, str], str]
_EXIT_CODES = {Verdict.OK: 0, Verdict.WORSE: 1}
_UNKNOWN = 2
_NAME = re.compile(r"[A-Za-z0-9._/:-]+")
_WINDOW = re.compile(r"[1-9][0-9]*[smhd]")


@click.group("canary")
def canary_group() -> None:
    """A new version beside the one in use."""


def _matching(pattern: re.Pattern[str], allowed: str) -> Check:
    def check(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
        if not pattern.fullmatch(value):
            raise click.BadParameter(f"{value!r}: {allowed}")
        return value

    return check


_name = _matching(_NAME, "letters, digits, and . _ / : -")


@canary_group.command("status")
@click.argument("model", callback=_name)
@click.option("--prometheus", metavar="URL", required=True, help="Where Prometheus answers.")
@click.option("--stable", default="v1", show_default=True, callback=_name, help="In use.")
@click.option("--canary", default="v2", show_default=True, callback=_name, help="On trial.")
@click.option(
    "--by",
    type=Member(By),
    default=By.VERSION.value,
    show_default=True,
    help="The label that has --stable and --canary as values; workload for Flagger.",
)
@click.option(
    "--window",
    default="10m",
    show_default=True,
    callback=_matching(_WINDOW, "a number with s, m, h or d, such as 30m"),
    help="The time span to compare, up to now.",
)
@click.option(
    "--min-samples",
    type=click.IntRange(min=1),
    default=Thresholds().min_samples,
    show_default=True,
    help="With fewer samples of either version, a line is not judged.",
)
@click.option(
    "--weight", type=click.FloatRange(0, 100), help="The canary's configured share in percent."
)
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def status_command(
    *,
    model: str,
    prometheus: str,
    stable: str,
    canary: str,
    by: By,
    window: str,
    min_samples: int,
    weight: float | None,
    form: str,
) -> None:
    """Stable against canary: exit code 0 not worse, 1 worse, 2 not known."""
    parts = [ModelPart(model, name, window, by) for name in (stable, canary)]
    limits = Thresholds(min_samples=min_samples)
    try:
        measured = asyncio.run(read(prometheus, *parts))
    except OperatorError as error:
        click.echo(f"headgate: {error}", err=True)
        sys.exit(_UNKNOWN)
    rows = compare(measured[0], measured[1], limits, weight)
    show = as_json if form == "json" else as_table
    click.echo(show(parts[0], parts[1], rows, limits))
    sys.exit(_EXIT_CODES.get(outcome(rows), _UNKNOWN))
