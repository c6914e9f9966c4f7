"""`headgate ledger weights`: how dear a token of output is beside one of input, by vLLM."""

import asyncio
import re
from datetime import UTC, datetime

import click

from headgate.core.errors import OperatorError
from headgate.core.showback import DEFAULT_WEIGHTS
from headgate.ledger.engine_seconds import read_seconds

_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%SZ"])
_MODEL = re.compile(r'[^"\\\n]+')


@click.command("weights")
@click.option("--from", "begin", type=_TIME, required=True, help="Such as 2026-10-01T00:00:00Z.")
@click.option("--to", "end", type=_TIME, required=True, help="Such as 2026-11-01T00:00:00Z.")
@click.option("--prometheus", metavar="URL", required=True, help="It scrapes vLLM's pods.")
@click.option("--model", required=True, help="The base model, by its first name in vLLM.")
def weights_command(*, begin: datetime, end: datetime, prometheus: str, model: str) -> None:
    """Calibrate the weights of the showback from vLLM's own seconds."""
    begin, end = begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    if begin >= end:
        raise click.UsageError("--from must be before --to")
    if not _MODEL.fullmatch(model):
        raise click.UsageError("--model has a quote, a backslash or a line break")
    found = asyncio.run(read_seconds(prometheus, model, begin, end))
    weight = found.output_weight
    if weight is None:
        raise OperatorError(
            f"Prometheus has no prompt and answer of {model} in this time; name the model as"
            " vLLM does in its label model_name"
        )
    click.echo(
        f"# {model}: {found.prefill_s:,.1f} s for {found.prompt - found.cached:,} uncached tokens"
        f" of prompts, {found.decode_s:,.1f} s for {found.output:,} tokens of output"
    )
    cached = DEFAULT_WEIGHTS.cached_input / DEFAULT_WEIGHTS.input
    click.echo(f"weights: {{input: 1, cached_input: {cached:g}, output: {weight.normalize():f}}}")
