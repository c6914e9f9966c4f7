"""The weights of the showback by vLLM's own seconds."""

import subprocess
import sys
from decimal import Decimal

import pytest

from headgate.ledger.engine_seconds import EngineSeconds
from tests.ledger.test_reconcile import END_S, TIMES, prometheus

COUNTERS = {
    "request_prefill_time_seconds_sum": 40.0,
    "request_decode_time_seconds_sum": 900.5,
    "prompt_tokens_total": 500_000.0,
    "prefix_cache_hits_total": 100_000.0,
    "generation_tokens_total": 90_050.0,
}
"""100 us for an uncached token of a prompt, 10 ms for one of output."""


def weights(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headgate", "ledger", "weights", *TIMES]
    command += ["--prometheus", url, *(options or ("--model", "tiny"))]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_weight_of_output_is_its_seconds_over_those_of_an_uncached_token() -> None:
    values = {name: [(END_S - 60, value / 2), (END_S, value)] for name, value in COUNTERS.items()}
    with prometheus(values) as url:
        done = weights(url)

    assert done.returncode == 0, done.stderr
    comment, line = done.stdout.splitlines()
    assert comment == (
        "# tiny: 40.0 s for 400,000 uncached tokens of prompts, 900.5 s for 90,050 tokens of output"
    )
    assert line == "weights: {input: 1, cached_input: 0.1, output: 100}"


def test_a_span_without_traffic_is_one_line() -> None:
    with prometheus({name: [(END_S, 0.0)] for name in COUNTERS}) as url:
        done = weights(url)

    assert done.returncode == 1
    assert done.stderr.startswith("headgate: Prometheus has no prompt and answer of tiny")


def test_a_name_cannot_change_the_question() -> None:
    done = weights("http://127.0.0.1:1", "--model", 'x"} or {a="b')

    assert done.returncode == 2
    assert "--model has a quote" in done.stderr


@pytest.mark.parametrize("part", ["prefill_s", "decode_s", "prompt", "output"])
def test_a_weight_needs_every_part(part: str) -> None:
    parts: dict[str, float] = {"prefill_s": 1, "decode_s": 2, "prompt": 8, "cached": 0, "output": 4}
    assert EngineSeconds(**parts).output_weight == Decimal("4.000")  # type: ignore[arg-type]

    assert EngineSeconds(**{**parts, part: 0}).output_weight is None  # type: ignore[arg-type]
