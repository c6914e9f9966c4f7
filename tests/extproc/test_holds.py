"""What a request without a maximum may hold of its caller's limits for its output."""

from dataclasses import replace

import pytest

from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.holds import output_cap
from extproc.types import Admit, Value
from headgate.core.contract import AdmissionKey
from headgate.core.policy import (
    Caller,
    CountedRequests,
    Limit,
    Measure,
    Per,
    PricedTokens,
    Slots,
    Smooth,
    TokenWeights,
    WeightedTokens,
    Windowed,
)
from tests.extproc.builders import ALICE, POLICY, facts
from tests.ratelimit.builders import books_of

TOKENS = WeightedTokens()


def windowed(number: int, measure: Measure = TOKENS, **more: object) -> Limit:
    fields: dict[str, object] = {"id": "x", "limit": number, "shape": Windowed(Per.DAY, measure)}
    return Limit(**{**fields, **more})  # type: ignore[arg-type]


PRICES = PricedTokens(books_of({"tiny": TokenWeights(output=2_000)}))
OTHER_PRICES = PricedTokens(books_of({"big": TokenWeights()}))
CASES = {
    "no limit": ((), None),
    "a limit": ((windowed(1600),), 100),
    "the smallest counts": ((windowed(1600), windowed(16_000)), 100),
    "a tiny limit": ((windowed(5),), 1),
    "weights": ((windowed(1600, WeightedTokens(TokenWeights(output=4_000))),), 25),
    "free output": ((windowed(1600, WeightedTokens(TokenWeights(output=0))),), None),
    "money": ((windowed(1600, PRICES),), 50),
    "money for another model": (
        (windowed(1600, PricedTokens(books_of({"big": TokenWeights()}))),),
        None,
    ),
    "a burst": ((windowed(9, shape=Smooth(Per.MINUTE, 1600, TOKENS)),), 100),
    "requests": ((windowed(16, CountedRequests()),), None),
    "slots": ((windowed(16, shape=Slots()),), None),
    "a shadow": ((windowed(16, shadow=True),), None),
    "another user's": ((windowed(16, users=frozenset({"bob"})),), None),
    "another model's": ((windowed(16, models=frozenset({"big"})),), None),
    "the user's on the model": (
        (windowed(1600, users=frozenset({"alice"}), models=frozenset({"tiny"})),),
        100,
    ),
}


@pytest.mark.parametrize(("limits", "cap"), CASES.values(), ids=CASES)
def test_the_output_holds_at_most_a_sixteenth(limits: tuple[Limit, ...], cap: int | None) -> None:
    assert output_cap(limits, Caller("acme", "alice", "k1"), "tiny") == cap


@pytest.mark.parametrize(
    ("more", "output"),
    [({}, 31), ({"n": 4.0}, 31), ({"max_tokens": 300.0}, 300)],
    ids=["no maximum", "four choices", "a maximum"],
)
def test_a_chat_on_a_small_limit_holds_little(more: dict[str, Value], output: int) -> None:
    """Eight small chats fit 500 tokens at once. A maximum that the client asks for is held."""
    tenant = replace(POLICY.tenants["acme"], limits=(windowed(500),))
    policy = replace(POLICY, tenants={ALICE.tenant: tenant})
    small = facts({"model": "tiny", "text_bytes": 32.0, **more}, size_bytes=80)

    decision = decide(small, policy, Estimator(), "r-1")

    assert isinstance(decision, Admit)
    held = int(decision.admission[AdmissionKey.ESTIMATE])
    prompt = int(decision.admission[AdmissionKey.ESTIMATE_PROMPT])
    assert held - prompt == output
    assert more or 8 * held <= 500
