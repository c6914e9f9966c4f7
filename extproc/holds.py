"""How much the output of a request without a maximum may hold of its caller's limits."""

from headgate.core.policy import (
    Caller,
    CountedRequests,
    Limit,
    PricedTokens,
    Slots,
    WeightedTokens,
)
from headgate.core.prices import TokenWeights

OUTPUT_SHARE = 16
"""Without a maximum, the output holds at most this part (1/16) of the smallest limit."""


def output_cap(limits: tuple[Limit, ...], caller: Caller, model: str) -> int | None:
    """The most tokens of output to hold for a request without a maximum; None: no limit bounds it.

    Most chats have no maximum. If each held a usual answer, a limit below that would admit one at a
    time. A limit that never refuses bounds nothing, nor does one in which output weighs nothing.
    """
    caps = [
        limit.capacity * 1000 // (OUTPUT_SHARE * weights.output)
        for limit in limits
        if not limit.shadow and _meets(limit, caller, model)
        if (weights := _weights(limit, model)) is not None and weights.output > 0
    ]
    return max(1, min(caps)) if caps else None


def _meets(limit: Limit, caller: Caller, model: str) -> bool:
    return (not limit.users or caller.user in limit.users) and (
        not limit.models or model in limit.models
    )


def _weights(limit: Limit, model: str) -> TokenWeights | None:
    """The weights of the model's tokens in thousandths; None if the limit counts no tokens."""
    if isinstance(limit.shape, Slots):
        return None
    match limit.shape.measure:
        case CountedRequests():
            return None
        case WeightedTokens(weights=weights):
            return weights
        case PricedTokens(books=books):
            return books[model].dearest_ever if model in books else None
