"""Durations are read as istiod reads them, with Go's time.ParseDuration."""

import pytest

from headgate.core.durations import go_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("5s", 5.0),
        (".25s", 0.25),
        ("1.s", 1.0),
        ("+5s", 5.0),
        ("-1.5h", -5400.0),
        ("1m30s", 90.0),
        ("1h15m30.918273645s", 4530.918273645),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("10μs", 1e-5),
        ("5ns", 5e-9),
        ("3s2h", 7203.0),
    ],
)
def test_a_duration_that_go_reads_is_its_seconds(text: str, seconds: float) -> None:
    assert go_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "30",
        "-",
        "s",
        ".s",
        "1",
        "1d",
        "1 s",
        "s5",
        "1s ",
        "1e3s",
        "3000000h",
        "1.2.3s",
        "٣s",
        30,
        2.5,
        None,
        True,
        ["1s"],
    ],
)
def test_anything_else_is_no_duration(value: object) -> None:
    assert go_seconds(value) is None
