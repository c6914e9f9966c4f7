"""The commands that read files and tell: `check` and `replay`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from headgate.cli.options import FILE, RATELIMIT_CONFIG
from headgate.dropin import describe_dropin, load_dropin
from headgate.policy import describe, load_policy
from headgate.replay import as_json, as_table, replay_files


@click.command("check")
@click.argument("file", type=FILE, required=False)
@RATELIMIT_CONFIG
def check_command(file: Path | None, ratelimit_config: tuple[Path, ...]) -> None:
    """Check a policy file: every mistake at once, exit code 1 if there is one."""
    if file is None and not ratelimit_config:
        raise click.UsageError("name a policy FILE, or files with --ratelimit-config")
    if file is not None:
        click.echo(describe(load_policy(file)))
    if ratelimit_config:
        click.echo(describe_dropin(load_dropin(ratelimit_config)))


@click.command("replay")
@click.option(
    "--records",
    type=FILE,
    required=True,
    multiple=True,
    help="Usage records, plain or gzip; several times for several files.",
)
@click.option("--policy", type=FILE, required=True, help="The policy to try.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def replay_command(records: tuple[Path, ...], policy: Path, form: str) -> None:
    """Who would have been refused under another policy."""
    report = replay_files(records, load_policy(policy), _progress)
    for line in report.records.bad:
        click.echo(f"headgate: {line}", err=True)
    click.echo(as_json(report) if form == "json" else as_table(report))


@contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error, else nothing."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden) as bar:
        yield bar.update
