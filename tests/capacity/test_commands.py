"""`headgate plan` and `headgate curve`, as people type them."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.capacity.curves_file import load_curves
from headgate.capacity.prometheus import QUERIES
from headgate.cli import cli
from headgate.core.errors import OperatorError
from headgate.simulator.exposition import Exposition
from headgate.simulator.metrics import EngineMetrics
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.settings import Settings
from tests.canary.fake_prometheus import fake_prometheus
from tests.capacity.test_traffic import line
from tests.fakes import FakeClock
from tests.istio.names import metrics_in

CURVES = """\
llama:
  gpu: H100
  gpus: 2
  first_token_s: 0.03
  prefill_tokens_per_s: 20000
  token_interval_s: 0.01
  slowdown_s: 0.0002
  max_num_seqs: 64
  source: measured in October
"""


def plan(*options: str) -> Result:
    return CliRunner().invoke(cli, ["plan", *options])


def run_json(*options: str) -> Mapping[str, object]:
    result = plan(*options, "--format", "json")
    assert result.exit_code == 0, result.output
    document: Mapping[str, object] = json.loads(result.stdout)
    return document


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Two tenants' chats of ten minutes."""
    chance = random.Random(7)
    file = tmp_path / "records.jsonl"
    with file.open("wb") as out:
        for number in range(300):
            minute, second = divmod(number * 2, 60)
            out.write(
                line(
                    time=f"2026-11-20T10:{minute:02d}:{second:02d}.{number % 1000:03d}Z",
                    tenant=chance.choice(("acme", "umbrella")),
                    user=f"user-{number % 30}",
                    prompt_tokens=chance.randrange(100, 4_000),
                    completion_tokens=chance.randrange(1, 600),
                    cached_tokens=50,
                )
            )
        out.write(line(status=429, flags=["RL"]))
    return file


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    file = tmp_path / "curves.yaml"
    file.write_text(CURVES)
    return file


def test_records_and_a_curve_give_pods_gpus_and_cost(records: Path, curves: Path) -> None:
    options = ("--records", str(records), "--curves", str(curves), "--gpu-price", "H100=2.50")
    shown = plan(*options, "--growth", "6x", "--zones", "3", "--canary", "0.1")

    assert shown.exit_code == 0, shown.output
    for text in ("llama:", "requests/s", "in 3 zones", "for a canary", "x H100", "cost per month"):
        assert text in shown.stdout
    assert "umbrella" in shown.stdout
    assert "1 requests refused by limits: no demand for pods" in shown.stdout
    assert "measured in October" in shown.stdout


def test_more_users_need_more_pods_and_cost_is_to_the_cent(records: Path, curves: Path) -> None:
    options = ("--records", str(records), "--curves", str(curves), "--gpu-price", "H100=2.49")
    few, many = run_json(*options), run_json(*options, "--growth", "30x")

    (first,), (second,) = few["models"], many["models"]  # type: ignore[misc]
    assert first["pods"] < second["pods"]
    assert second["cost_per_month"] == f"{249 * second['gpus'] * 730 / 100:.2f}"


def test_a_plan_is_compared_with_what_came(records: Path, curves: Path, tmp_path: Path) -> None:
    options = ("--records", str(records), "--curves", str(curves))
    earlier = tmp_path / "plan.json"
    earlier.write_text(plan(*options, "--format", "json", "--growth", "2x").stdout)

    shown = plan("--records", str(records), "--check", str(earlier))
    (row,) = json.loads(
        plan("--records", str(records), "--check", str(earlier), "--format", "json").stdout
    )

    assert "llama: planned 1 requests/s, came 0.5 (-50%)" in shown.stdout
    assert row["came_ttft_s"] == 0.5
    assert row["planned_range_s"][0] <= row["planned_ttft_s"] <= row["planned_range_s"][1]


def test_users_without_records_are_planned_from_assumptions(tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    options = ("--model", "llama-8b", "--curve", "llama-8b=L40S:8B", "--picture", str(picture))
    few, many = run_json("--users", "400", *options), run_json("--users", "4000", *options)

    (first,), (second,) = few["models"], many["models"]  # type: ignore[misc]
    assert first["pods"] < second["pods"]
    assert "never measured" in second["curve"]["source"]
    assert picture.read_text().startswith("<svg")
    assert "objective 1.0 s" in picture.read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--records, or a number with --users"),
        (("--users", "4", "--slo", "ttft=1s"), "write ttft_p95=1s"),
        (("--users", "4", "--slo", "per_token_p95=1s"), "needs a bound for ttft"),
        (("--users", "4", "--curve", "m=GTX:8B"), "GPU is one of"),
        (("--users", "4", "--curve", "m=H100:70B"), "give the pod more GPUs"),
        (("--users", "4", "--growth", "0x"), "is not a factor"),
        (("--users", "4", "--window", "10"), "such as 10m"),
        (("--users", "4", "--curve", "model=H100:8B", "--gpu-price", "H100"), "GPU=PRICE"),
        (("--users", "4", "--curve", "model=H100:8B", "--gpu-price", "H100=NaN"), "0 or more"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(options: tuple[str, ...], told: str) -> None:
    result = plan(*options)

    assert result.exit_code == 2
    assert told in result.output


def test_a_model_without_a_curve_is_named(records: Path) -> None:
    result = plan("--records", str(records))

    assert isinstance(result.exception, OperatorError)
    assert "Models with traffic: llama" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("llama: [", "is not YAML"),
        ("llama: {gpu: H100}", "missing required field"),
        (CURVES.replace("gpus: 2", "gpus: 0"), "gpus is 0; it must be more than 0"),
        (CURVES.replace("0.0002", "-1"), "must be 0 or more"),
    ],
)
def test_a_bad_curve_is_named_with_its_model(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "curves.yaml"
    file.write_text(text)

    with pytest.raises(OperatorError, match=told):
        load_curves(file)


def test_a_file_that_is_no_plan_is_named(records: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "plan.json"
    earlier.write_text("{}")

    result = plan("--records", str(records), "--check", str(earlier))

    assert "is not a plan of `headgate plan --format json`" in str(result.exception)


def test_a_curve_is_measured_from_histograms(tmp_path: Path) -> None:
    values = {
        "running": (2, 8, 20, 40, 60),
        "interval_s": (0.0104, 0.0116, 0.014, 0.018, 0.022),
        "prefill_s": (0.08, 0.13, 0.055, 0.23, 0.04),
        "uncached_tokens": (1_000, 2_000, 500, 4_000, 200),
        "requests_per_s": (0, 0, 0, 0, 0),
    }
    series = {
        query.replace("LABELS", 'model_name="llama"'): [
            {
                "metric": {"__name__": name, "pod": "a"},
                "values": [[60 * step, str(value)] for step, value in enumerate(values[name])],
            }
        ]
        for name, query in QUERIES.items()
    }
    with fake_prometheus(ranges=series) as prometheus:
        command = ["curve", "llama", "--prometheus", prometheus.url, "--gpu", "H100"]
        shown = CliRunner().invoke(cli, command)

    assert shown.exit_code == 0, shown.output
    file = tmp_path / "curves.yaml"
    file.write_text(shown.stdout)
    curve = load_curves(file)["llama"]
    assert curve.prefill_tokens_per_s == pytest.approx(20_000, rel=1e-4)
    assert curve.token_interval_s == pytest.approx(0.01, rel=1e-4)
    assert curve.slowdown_s == pytest.approx(0.0002, rel=1e-4)
    assert "5 samples" in curve.source


def test_every_metric_of_a_curve_is_one_that_vllm_has() -> None:
    page = Exposition("m", EngineMetrics(FakeClock()), Scheduler(Settings())).page().decode()

    for query in QUERIES.values():
        for metric in metrics_in(query):
            assert metric in page
