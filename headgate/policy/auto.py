"""The `auto` of a policy file: which models the name stands for, and what a tenant may pay."""

from collections.abc import Mapping

from pydantic import Field

from headgate.core.auto import Size, Sizes
from headgate.core.policy import Model
from headgate.core.prices import Prices
from headgate.policy.fields import Entry
from headgate.policy.money import Price

MAX_UP_TO = 100_000_000
AUTO_RULE = "models by name from the smallest to the largest, each with up_to or {}"
CEILING_RULE = "a mapping with the keys input, output"


class SizeEntry(Entry):
    """A model that `auto` may choose."""

    up_to: int | None = Field(
        default=None,
        ge=1,
        le=MAX_UP_TO,
        description=f"a whole number of tokens from 1 to {MAX_UP_TO}",
    )
    tools: bool = Field(default=True, description="false if the model cannot call tools")
    images: bool = Field(default=True, description="false if the model cannot see images")


class CeilingEntry(Entry):
    """The highest prices of a model that `auto` chooses for a tenant, or of a spare version."""

    input: Price
    output: Price


def sizes_of(entries: Mapping[str, SizeEntry], models: Mapping[str, Model]) -> Sizes:
    """The sizes of a checked file. One without `up_to` takes what fits into its context."""
    return tuple(
        Size(name, entry.up_to or models[name].context_tokens, entry.tools, entry.images)
        for name, entry in entries.items()
    )


def below(ceiling: CeilingEntry | None, sizes: Sizes, models: Mapping[str, Model]) -> Sizes:
    """The sizes whose models cost no more than the ceiling, in all periods and versions."""
    if ceiling is None:
        return sizes
    most = Prices(input=ceiling.input, output=ceiling.output).per_token
    prices = ((size, models[size.model].prices.dearest_ever) for size in sizes)
    return tuple(
        size for size, each in prices if each.input <= most.input and each.output <= most.output
    )
