"""Splits amounts so that the parts add up to the whole, to the last nano. Pure."""

from collections.abc import Sequence

from headgate.ledger.showback.values import Line, PoolMonth, Usage

Weights = tuple[int, int, int]


def largest_remainder(amount: int, weights: Sequence[int]) -> list[int]:
    """Splits an amount by weights. The rest of rounding down goes to the largest remainders.

    Of equal remainders the first has it. Without any weight, every part is 0.
    """
    total = sum(weights)
    if total == 0:
        return [0] * len(weights)
    parts = [amount * weight // total for weight in weights]
    by_remainder = sorted(
        range(len(weights)), key=lambda at: amount * weights[at] % total, reverse=True
    )
    for at in by_remainder[: amount - sum(parts)]:
        parts[at] += 1
    return parts


def rounded(numbers: Sequence[int], unit: int) -> list[int]:
    """Numbers in whole units that add up to the rounded sum, by largest remainder.

    Each is rounded down or up. Of equal remainders the first is rounded up.
    """
    parts = [number // unit for number in numbers]
    rest = (sum(numbers) + unit // 2) // unit - sum(parts)
    by_remainder = sorted(range(len(parts)), key=lambda at: numbers[at] % unit, reverse=True)
    for at in by_remainder[:rest]:
        parts[at] += 1
    return parts


def weighted(usage: Usage, weights: Weights) -> int:
    """The work of a usage in thousandths of a token."""
    of_input, of_cached, of_output = weights
    return (
        usage.input_tokens * of_input
        + usage.cached_tokens * of_cached
        + usage.output_tokens * of_output
    )


def works(pool_models: Sequence[str], lines: Sequence[Line], weights: Weights) -> list[int]:
    """The work that each line had done in a pool: 0 if the pool does not run its model."""
    return [
        weighted(line.usage, weights) if line.is_billed and line.base in pool_models else 0
        for line in lines
    ]


def shares(pool: PoolMonth, lines: Sequence[Line], weights: Weights) -> tuple[list[int], list[int]]:
    """The used and the idle part of a pool for each line, in nanos."""
    work = works(pool.models, lines, weights)
    return largest_remainder(pool.used_nanos, work), largest_remainder(pool.idle_nanos, work)
