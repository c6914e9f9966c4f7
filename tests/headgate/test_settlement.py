"""The charge of a finished request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.settlement import Charge, Estimate, Source, Usage, charge, read_usage

RESERVED = Estimate(tokens=300, prompt=40)

CASES = {
    "no upstream answered": (Usage(), Charge(0, 0, Source.REFUND)),
    "the upstream refused": (Usage(status=404, complete=True), Charge(0, 0, Source.REFUND)),
    "the upstream failed": (Usage(status=500), Charge(0, 0, Source.REFUND)),
    "usage was seen": (
        Usage(status=200, prompt=12, completion=64, complete=True),
        Charge(12, 64, Source.USAGE),
    ),
    "aborted with running usage": (
        Usage(status=200, prompt=12, completion=7, events=7),
        Charge(12, 7, Source.USAGE),
    ),
    "a part of the prompt was cached": (
        Usage(status=200, prompt=12, completion=64, cached=8, complete=True),
        Charge(12, 64, Source.USAGE, 8),
    ),
    "more cached tokens than the prompt has": (
        Usage(status=200, prompt=12, completion=64, cached=99, complete=True),
        Charge(12, 64, Source.USAGE, 12),
    ),
    "aborted without usage": (Usage(status=200, events=9), Charge(40, 9, Source.PARTIAL)),
    "aborted with the prompt known": (
        Usage(status=200, prompt=12, events=9),
        Charge(12, 9, Source.PARTIAL),
    ),
    "aborted before anything came": (Usage(status=200), Charge(40, 0, Source.PARTIAL)),
    "an error inside the stream": (
        Usage(status=200, events=3, complete=True, error=True),
        Charge(40, 3, Source.PARTIAL),
    ),
    "complete without usage": (
        Usage(status=200, complete=True),
        Charge(40, 260, Source.ESTIMATE),
    ),
}


@pytest.mark.parametrize(("usage", "expected"), CASES.values(), ids=CASES)
def test_a_request_is_charged_by_the_usage_of_its_answer(usage: Usage, expected: Charge) -> None:
    assert charge(usage, RESERVED) == expected


def test_a_refund_charges_no_request_either() -> None:
    assert charge(Usage(status=503), RESERVED).requests == 0
    assert charge(Usage(status=200), RESERVED).requests == 1


@pytest.mark.parametrize("status", [100, 101, 103, 204, 205, 301, 302, 304, 307, 400, 404, 503])
def test_a_status_without_an_answer_is_not_charged(status: int) -> None:
    usage = Usage(status=status, prompt=12, completion=64, events=3, complete=True)
    assert charge(usage, RESERVED) == Charge(0, 0, Source.REFUND)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
def test_any_other_2xx_is_an_answer(status: int) -> None:
    usage = Usage(status=status, prompt=12, completion=64, complete=True)
    assert charge(usage, RESERVED) == Charge(12, 64, Source.USAGE)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=20)))
def test_garbage_from_the_wire_is_never_a_charge_below_zero(values: dict[str, str]) -> None:
    cost = charge(read_usage(values), RESERVED)

    assert cost.prompt >= 0
    assert cost.completion >= 0


@pytest.mark.parametrize("text", ["", "-", "-1", "1.5", "1e3", " 7", "٣", "9" * 17, str(2**53)])
def test_a_malformed_number_counts_as_not_seen(text: str) -> None:
    assert read_usage({"prompt": text}).prompt is None


BY_SECOND = Estimate(tokens=300, prompt=300, per_second=50)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(status=200, seconds=3, complete=True), Charge(150, 0, Source.USAGE, seconds=3)),
        (Usage(status=200, seconds=0, complete=True), Charge(0, 0, Source.USAGE, seconds=0)),
        (Usage(status=200, complete=True), Charge(300, 0, Source.ESTIMATE, seconds=6)),
        (Usage(status=200, prompt=154, completion=7, events=7), Charge(154, 7, Source.USAGE)),
        (Usage(status=200, events=2), Charge(300, 2, Source.PARTIAL, seconds=6)),
        (Usage(abandoned=True), Charge(300, 0, Source.PARTIAL, seconds=6)),
        (Usage(status=400, seconds=3, complete=True), Charge(0, 0, Source.REFUND)),
        (
            Usage(status=200, seconds=2**52, complete=True),
            Charge(2**53 - 1, 0, Source.USAGE, seconds=2**52),
        ),
    ],
    ids=["reported", "none", "silent", "stream", "cut-off", "abandoned", "refused", "absurd"],
)
def test_seconds_of_audio_cost_their_price(usage: Usage, expected: Charge) -> None:
    assert charge(usage, BY_SECOND) == expected


def test_a_stream_of_audio_is_charged_tokens_and_no_seconds() -> None:
    """vLLM tells no length of a stream, so one that breaks off costs no seconds either."""
    stream = Estimate(tokens=360, prompt=300, per_second=50)
    assert stream.seconds is None
    assert charge(Usage(status=200, events=2), stream).seconds is None


def test_seconds_without_a_price_cost_the_estimate() -> None:
    usage = Usage(status=200, seconds=3, complete=True)

    assert charge(usage, Estimate(500, 500)) == Charge(500, 0, Source.ESTIMATE)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(abandoned=True), Charge(40, 0, Source.PARTIAL)),
        (Usage(abandoned=False), Charge(0, 0, Source.REFUND)),
        (Usage(status=503, abandoned=True), Charge(0, 0, Source.REFUND)),
        (Usage(status=200, abandoned=True), Charge(40, 0, Source.PARTIAL)),
        (Usage(status=504, abandoned=True), Charge(40, 0, Source.PARTIAL)),
        (Usage(status=504), Charge(0, 0, Source.REFUND)),
    ],
    ids=["at vLLM", "not there yet", "an error", "an answer", "Envoy's 504", "vLLM's 504"],
)
def test_a_request_that_is_abandoned_while_vllm_works_pays_its_prompt(
    usage: Usage, expected: Charge
) -> None:
    """Otherwise a prompt without streaming would be free if its client disconnects early, or if the
    answer takes longer than Envoy waits."""
    assert charge(usage, RESERVED) == expected


def test_only_envoys_own_value_says_that_a_request_was_abandoned() -> None:
    assert read_usage({"left": "true"}).abandoned
    for text in ("false", "1", "-", "True", ""):
        assert not read_usage({"left": text}).abandoned
