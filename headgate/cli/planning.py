"""The commands that plan capacity: `plan` and `curve`."""

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from headgate.capacity.assumptions import Assumptions, assumed_traffic
from headgate.capacity.curve import ServiceCurve
from headgate.capacity.curves_file import as_yaml, check_curve, load_curves
from headgate.capacity.fit import fit
from headgate.capacity.forecast import Objective
from headgate.capacity.gpus import GPUS, computed_curve
from headgate.capacity.hindsight import compare, comparisons_as_json, load_plan
from headgate.capacity.picture import as_svg
from headgate.capacity.plan import Wishes, plan_model
from headgate.capacity.prometheus import read_samples
from headgate.capacity.records import Demand
from headgate.capacity.report import LeftOut, as_json, as_table
from headgate.capacity.traffic import Traffic, busiest_window
from headgate.cli.options import FILE
from headgate.cli.progress import progress
from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.record_lines import files_size_bytes

_OBJECTIVE = re.compile(r"(ttft|per_token)_p(\d{2}(?:\.\d)?)=(\d+(?:\.\d+)?)(ms|s)")
_CURVE = re.compile(r"([^=\s]+)=([A-Za-z0-9-]+)(?:x([1-9]\d?))?:(\d+(?:\.\d+)?)B(?:@(4|8|16))?")
_DURATION = re.compile(r"([1-9]\d*)(m|h|d)")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


class _Growth(click.ParamType[float]):
    """A factor, such as `3x` or `1.5x`."""

    name = "factor"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reads the text; a wrong one ends the command with a usage error."""
        matched = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)x?", str(value))
        if matched is None or float(matched[1]) <= 0:
            self.fail(f"{str(value)!r} is not a factor, for example 3x", param, ctx)
        return float(matched[1])


class _Duration(click.ParamType[int]):
    """Whole minutes, hours or days, such as `10m`; the value is in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Reads the text; a wrong one ends the command with a usage error."""
        matched = _DURATION.fullmatch(str(value))
        if matched is None:
            self.fail(f"{str(value)!r} is not a number with m, h or d, such as 10m", param, ctx)
        return int(matched[1]) * _UNIT_S[matched[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The options of `plan`."""

    records: tuple[Path, ...]
    users: int | None
    model: str
    objectives: tuple[str, ...]
    growth: float
    window_s: int
    curves: Path | None
    computed: tuple[str, ...]
    zones: int
    canary_share: float
    prices: tuple[str, ...]
    earlier: Path | None
    picture: Path | None
    form: str


@click.command("plan")
@click.option("--records", type=FILE, multiple=True, help="Usage records, plain or gzip.")
@click.option("--users", type=click.IntRange(min=1), help="Plan from assumptions instead.")
@click.option("--model", default="model", show_default=True, help="The model's name, for --users.")
@click.option(
    "--slo",
    "objectives",
    multiple=True,
    default=("ttft_p95=1s",),
    show_default=True,
    help="ttft_p95=1s or per_token_p95=50ms.",
)
@click.option("--growth", type=_Growth(), default="1x", show_default=True, help="Times the users.")
@click.option("--window", "window_s", type=_Duration(), default="10m", show_default=True)
@click.option("--curves", type=FILE, help="Service curves by base model, YAML.")
@click.option(
    "--curve",
    "computed",
    multiple=True,
    metavar="MODEL=GPU[xN]:SIZEB[@BITS]",
    help="A model that was never run, for example llama-8b=H100:8B.",
)
@click.option("--zones", type=click.IntRange(1, 9), default=1, show_default=True)
@click.option("--canary", "canary_share", type=click.FloatRange(0, 1), default=0.0)
@click.option("--gpu-price", "prices", multiple=True, metavar="GPU=PRICE", help="Of one hour.")
@click.option("--check", "earlier", type=FILE, help="Compare this earlier plan with the records.")
@click.option("--picture", type=FILE, help="Write an SVG here.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def plan_command(**options: Any) -> None:
    """How many GPUs the traffic needs, by simulation of usage records or assumptions."""
    asked = _Asked(**options)
    if bool(asked.records) == (asked.users is not None):
        raise click.UsageError("give usage records with --records, or a number with --users")
    demand = _read(asked.records)
    if asked.earlier is not None:
        _check(asked.earlier, demand, asked.form)
    else:
        _plan(asked, demand)


@click.command("curve")
@click.argument("model")
@click.option("--prometheus", metavar="URL", required=True, help="Where Prometheus answers.")
@click.option("--range", "range_s", type=_Duration(), default="6h", show_default=True)
@click.option("--gpu", required=True, help="The kind of GPU, as its price is named.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Of a pod.")
@click.option("--max-num-seqs", type=click.IntRange(min=1), default=256, show_default=True)
def curve_command(
    *, model: str, prometheus: str, range_s: int, gpu: str, gpus: int, max_num_seqs: int
) -> None:
    """The service curve of a running base model, from vLLM's histograms."""
    now_s = SystemClock().now_s()
    samples = asyncio.run(read_samples(prometheus, model, now_s - range_s, now_s))
    fitted = fit(samples)
    curve = ServiceCurve(
        gpu=gpu,
        gpus=gpus,
        first_token_s=fitted.prefill.base,
        prefill_tokens_per_s=1 / fitted.prefill.slope,
        token_interval_s=fitted.interval.base,
        slowdown_s=fitted.interval.slope,
        max_num_seqs=max_num_seqs,
        source=f"{len(samples)} samples of vLLM's histograms",
    )
    check_curve(model, curve)
    click.echo(as_yaml(model, curve))


def _plan(asked: _Asked, demand: Demand) -> None:
    wishes = Wishes(
        objective=_objective(asked.objectives),
        growth=asked.growth,
        zones=asked.zones,
        canary_share=asked.canary_share,
        prices=_prices(asked.prices),
    )
    traffics = _traffics(asked, demand)
    known = {**(load_curves(asked.curves) if asked.curves else {}), **_computed(asked.computed)}
    plans = [
        plan_model(each, known[each.model], wishes) for each in traffics if each.model in known
    ]
    if not plans:
        names = ", ".join(traffic.model for traffic in traffics) or "none"
        raise OperatorError(
            f"no model has both traffic and a service curve. Models with traffic: {names}."
            " Name a curve with --curve or --curves; `headgate curve` measures one"
        )
    left_out = LeftOut(
        refused_by_limits=demand.refused_by_limits,
        without_capacity=demand.without_capacity,
        other_lines=demand.other_lines,
        models_without_curve=tuple(each.model for each in traffics if each.model not in known),
    )
    if asked.picture is not None:
        asked.picture.write_text(as_svg(plans, wishes.objective))
    if asked.form == "json":
        made = datetime.fromtimestamp(SystemClock().now_s(), UTC).isoformat(timespec="seconds")
        click.echo(as_json(plans, wishes, left_out, made))
    else:
        click.echo(as_table(plans, wishes, left_out))


def _read(paths: tuple[Path, ...]) -> Demand:
    demand = Demand()
    with progress("reading", files_size_bytes(paths)) as advance:
        for path in paths:
            demand.read(path, advance)
    return demand


def _check(earlier: Path, demand: Demand, form: str) -> None:
    comparisons = compare(load_plan(earlier), demand)
    text = "\n".join(each.text for each in comparisons)
    click.echo(comparisons_as_json(comparisons) if form == "json" else text)


def _traffics(asked: _Asked, demand: Demand) -> list[Traffic]:
    if asked.users is not None:
        chance = random.Random(asked.users)  # noqa: S311 (no secret)
        assumptions = Assumptions(users=asked.users)
        return [assumed_traffic(asked.model, assumptions, asked.window_s, chance)]
    demands = demand.arrivals.items()
    return [busiest_window(name, arrivals, asked.window_s) for name, arrivals in demands]


def _objective(texts: tuple[str, ...]) -> Objective:
    bounds: dict[str, float] = {}
    share = 0.95
    for text in texts:
        matched = _OBJECTIVE.fullmatch(text)
        if matched is None:
            raise click.UsageError(
                f"--slo {text!r}: write ttft_p95=1s or per_token_p95=50ms, in s or ms"
            )
        share = float(matched[2]) / 100
        bounds[matched[1]] = float(matched[3]) / (1000 if matched[4] == "ms" else 1)
    if "ttft" not in bounds:
        raise click.UsageError("--slo needs a bound for ttft, for example ttft_p95=1s")
    return Objective(ttft_s=bounds["ttft"], quantile=share, per_token_s=bounds.get("per_token"))


def _computed(texts: tuple[str, ...]) -> Mapping[str, ServiceCurve]:
    curves = {}
    for text in texts:
        matched = _CURVE.fullmatch(text)
        if matched is None or matched[2] not in GPUS:
            raise click.UsageError(
                f"--curve {text!r}: write MODEL=GPU:SIZEB, such as llama-70b=H100x4:70B@16;"
                f" GPU is one of {', '.join(GPUS)}"
            )
        name, gpu, gpus, billions, bits = matched.groups()
        try:
            curves[name] = computed_curve(gpu, int(gpus or 1), float(billions), int(bits or 16))
        except ValueError as error:
            raise click.UsageError(f"--curve {text!r}: {error}") from None
    return curves


def _prices(texts: tuple[str, ...]) -> Mapping[str, Decimal]:
    prices = {}
    for text in texts:
        gpu, _, price = text.partition("=")
        try:
            prices[gpu] = Decimal(price)
        except InvalidOperation:
            raise click.UsageError(
                f"--gpu-price {text!r}: write GPU=PRICE, such as H100=2.50"
            ) from None
        if not prices[gpu].is_finite() or prices[gpu] < 0:
            raise click.UsageError(f"--gpu-price {text!r}: a price is 0 or more")
    return prices
