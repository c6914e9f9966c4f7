"""`headgate canary status` against an API in Prometheus' shapes."""

import json

import pytest
from click.testing import CliRunner, Result

from headgate.canary.queries import (
    E2E,
    FINISH_REASONS,
    KV_CACHE,
    PER_TOKEN,
    TTFT,
    WAITING,
    By,
    ModelPart,
)
from headgate.cli import cli
from tests.canary.fake_prometheus import NOW_S, fake_prometheus
from tests.ports import free_port

V1, V2 = ModelPart("llama-8b", "v1", "10m"), ModelPart("llama-8b", "v2", "10m")


def series(part: ModelPart, requests: float, ttft_s: float) -> dict[str, str]:
    """The series of a healthy version."""
    values: dict[str, float] = {
        part.requests(): requests,
        part.errors(): 0,
        part.finished(): requests,
        part.samples(TTFT): requests,
        part.quantile(TTFT, 0.5): ttft_s / 2,
        part.quantile(TTFT, 0.95): ttft_s,
        part.samples(PER_TOKEN): requests * 100,
        part.mean(PER_TOKEN): 0.02,
        part.samples(E2E): requests,
        part.quantile(E2E, 0.95): 9.5,
        part.gauge(WAITING): 0,
        part.gauge(KV_CACHE): 0.25,
        part.tokens_per_request(): 100,
    }
    values |= {part.finished(reason): 0 for reason in FINISH_REASONS}
    return {query: str(value) for query, value in values.items()}


def status(url: str, *options: str) -> Result:
    words = ["canary", "status", "llama-8b", "--prometheus", url, *options]
    return CliRunner().invoke(cli, words)


@pytest.mark.parametrize(
    ("requests", "ttft_s", "code", "verdict"),
    [
        (200, 0.5, 0, "the canary is not worse"),
        (200, 0.9, 1, "worse"),
        (30, 0.9, 2, "too few samples"),
    ],
)
def test_the_exit_code_is_0_not_worse_1_worse_2_not_known(
    requests: int, ttft_s: float, code: int, verdict: str
) -> None:
    with fake_prometheus(series(V1, 1800, 0.5) | series(V2, requests, ttft_s)) as prometheus:
        shown = status(prometheus.url)

    assert shown.exit_code == code
    assert shown.stdout.splitlines()[-1] == f"verdict: {verdict}"


def test_nan_is_no_data() -> None:
    values = series(V1, 1800, 0.5) | dict.fromkeys(series(V2, 1, 1), "NaN")
    with fake_prometheus(values) as prometheus:
        shown = status(prometheus.url, "--format", "json")

    report = json.loads(shown.stdout)
    assert shown.exit_code == 2
    assert report["verdict"] == "no data"
    assert {row["canary"] for row in report["rows"]} == {None}


def test_json_gives_seconds_and_rates_with_their_samples() -> None:
    with fake_prometheus(series(V1, 1800, 0.5) | series(V2, 200, 0.55)) as prometheus:
        report = json.loads(status(prometheus.url, "--format", "json", "--weight", "10").stdout)

    rows = {row["name"]: row for row in report["rows"]}
    assert rows["TTFT p95"] == {
        "name": "TTFT p95",
        "stable": 0.5,
        "canary": 0.55,
        "ratio": pytest.approx(1.1),
        "stable_samples": 1800,
        "canary_samples": 200,
        "verdict": "ok",
        "why": "",
    }
    assert rows["traffic share"]["canary"] == pytest.approx(0.1)
    assert rows["traffic share"]["why"] == "configured: 10 %"


def test_all_questions_are_of_one_moment() -> None:
    with fake_prometheus() as prometheus:
        status(prometheus.url)

    first, *others = prometheus.asked
    assert first["query"] == ["time()"]
    assert {form["time"][0] for form in others} == {str(NOW_S)}


def test_the_parts_of_a_flagger_canary_are_told_by_their_workload() -> None:
    parts = [
        ModelPart("llama-8b", name, "30m", By.WORKLOAD) for name in ("llama-8b-v1-primary", "x")
    ]
    values = series(parts[0], 900, 0.5) | series(parts[1], 900, 0.5)
    names = ("--stable", "llama-8b-v1-primary", "--canary", "x", "--window", "30m")
    with fake_prometheus(values) as prometheus:
        shown = status(prometheus.url, "--by", "workload", *names)

    assert shown.exit_code == 0
    assert 'destination_workload="x"' in parts[1].requests()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ((200, b"<html>Grafana</html>"), "answers HTTP 200 without a result"),
        ((404, b"not found"), "answers HTTP 404 without a result"),
        ((200, b"[]"), "without a result"),
        ((200, b'{"status":"success","data":{"resultType":"vector","result":[{}]}}'), "without a"),
        ((422, b'{"status":"error","errorType":"execution","error":"too slow"}'), "too slow"),
    ],
)
def test_what_does_not_answer_as_prometheus_is_one_line_and_exit_code_2(
    raw: tuple[int, bytes], message: str
) -> None:
    with fake_prometheus(raw=raw) as prometheus:
        shown = status(prometheus.url)

    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert prometheus.url in shown.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:{free}", "prometheus:9090", "http://"])
def test_a_prometheus_that_cannot_be_reached_is_one_line_and_exit_code_2(url: str) -> None:
    url = url.format(free=free_port())
    shown = status(url)

    assert shown.exit_code == 2
    assert "cannot be asked" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "option", [("--canary", 'v2"} or vector(1) #'), ("--window", "10"), ("--window", "0m")]
)
def test_what_would_change_a_query_is_refused(option: tuple[str, str]) -> None:
    shown = status("http://127.0.0.1:1", *option)

    assert shown.exit_code == 2
    assert "Invalid value" in shown.stderr
