"""The commands that read files and report: `check` and `replay`."""

import sys
from pathlib import Path

import click

from headgate.cli.options import FILE, RATELIMIT_CONFIG
from headgate.cli.progress import progress
from headgate.istio_check.check import check_files
from headgate.policy import describe, load_policy
from headgate.replay.report import as_json, as_table, replay_files
from headgate.rls_config import describe_domains, load_domains


@click.command("check")
@click.argument("file", type=FILE, required=False)
@RATELIMIT_CONFIG
@click.option(
    "--istio",
    type=click.Path(path_type=Path),
    help="Check the policy together with this YAML: a kustomization, a folder or a file.",
)
@click.option("--mesh-config", type=FILE, help="istiod's mesh configuration, for --istio.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the report of --istio is printed.",
)
def check_command(
    file: Path | None,
    ratelimit_config: tuple[Path, ...],
    istio: Path | None,
    mesh_config: Path | None,
    form: str,
) -> None:
    """Check a policy file: every mistake at once, exit code 1 if there is one."""
    if istio is not None:
        _check_istio(file, istio, mesh_config, form, ratelimit_config)
        return
    if mesh_config is not None or form != "text":
        raise click.UsageError("--mesh-config and --format go with --istio")
    if file is None and not ratelimit_config:
        raise click.UsageError("name a policy FILE, or files with --ratelimit-config")
    if file is not None:
        click.echo(describe(load_policy(file)))
    if ratelimit_config:
        click.echo(describe_domains(load_domains(ratelimit_config)))


@click.command("replay")
@click.option(
    "--records",
    type=FILE,
    required=True,
    multiple=True,
    help="Usage records, plain or gzip; repeat it for several files.",
)
@click.option("--policy", type=FILE, required=True, help="The policy to try.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def replay_command(records: tuple[Path, ...], policy: Path, form: str) -> None:
    """Report the requests that another policy would have refused."""
    report = replay_files(records, load_policy(policy), progress)
    for line in report.records.bad:
        click.echo(f"headgate: {line}", err=True)
    click.echo(as_json(report) if form == "json" else as_table(report))


def _check_istio(
    file: Path | None,
    istio: Path,
    mesh_config: Path | None,
    form: str,
    ratelimit_config: tuple[Path, ...],
) -> None:
    if file is None or ratelimit_config:
        raise click.UsageError("--istio goes with a policy FILE, and without --ratelimit-config")
    report = check_files(file, istio, mesh_config)
    click.echo(report.as_json() if form == "json" else report.as_text())
    if report.has_errors:
        sys.exit(1)
