"""The options that say what a key may do: its models, limits, labels and end."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any

import click

from headgate.core.amounts import NANOS
from headgate.core.policy import Count

_LIMIT = re.compile(r"(?P<count>[a-z]+)=(?P<limit>[0-9]{1,16}(\.[0-9]{1,9})?)(/(?P<per>[a-z]+))?")


class KeyLimitText(click.ParamType[dict[str, Any]]):
    """A limit such as `tokens=100000/day`, `cost=12.50/month` or `concurrent=4`.

    Its value is what the API takes: cost in nanos of the currency.
    """

    name = "limit"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """Reads the text; a wrong one ends the command with a usage error."""
        matched = _LIMIT.fullmatch(str(value))
        if matched is None:
            self.fail(f"{str(value)!r} is not a limit, for example tokens=100000/day", param, ctx)
        number = Decimal(matched["limit"]) * (NANOS if matched["count"] == Count.COST else 1)
        if number % 1:
            self.fail(f"{str(value)!r}: only cost may have decimals", param, ctx)
        return {**matched.groupdict(), "limit": int(number)}


class LabelText(click.ParamType[tuple[str, str]]):
    """A label `NAME=VALUE`."""

    name = "label"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Reads the text; a wrong one ends the command with a usage error."""
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{str(value)!r} is not a label, for example project=search", param, ctx)
        return name, text


_OPTIONS = (
    click.option("--model", "models", multiple=True, help="May use this model only; repeat."),
    click.option(
        "--limit",
        "limits",
        type=KeyLimitText(),
        multiple=True,
        metavar="COUNT=NUMBER/PER",
        help="A limit of the key's own, such as tokens=100000/day; repeat.",
    ),
    click.option(
        "--label",
        "labels",
        type=LabelText(),
        multiple=True,
        metavar="NAME=VALUE",
        help="A label for reports; repeat.",
    ),
    click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="How long it lives."),
)


def takes_scope(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options, and passes it as `scope` what they set, as the API takes it."""

    @wraps(command)
    def run(
        *,
        models: tuple[str, ...],
        limits: tuple[dict[str, Any], ...],
        labels: tuple[tuple[str, str], ...],
        hours: float | None,
        **others: Any,
    ) -> None:
        given = {"models": list(models), "limits": list(limits), "labels": dict(labels)}
        scope: dict[str, Any] = {name: value for name, value in given.items() if value}
        if hours is not None:
            scope["expires_at"] = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        command(scope=scope, **others)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run
