"""`headgate top`: rates from two pages of metrics, and a screen of a real box."""

import subprocess
import sys
from pathlib import Path

import pytest

from headgate.core.samples import parse_samples
from headgate.top.screen import screen
from headgate.top.view import Between, pod, view
from tests.box import environment, policy, running_box
from tests.envoy.conftest import started_simulator

BEFORE = """
headgate_answers_total{model="tiny",version="v1",class="2xx",ended="complete"} 10
headgate_answers_total{model="tiny",version="v1",class="5xx",ended="complete"} 0
headgate_requests_total{tenant="acme",model="tiny",api="chat",status="200"} 10
headgate_tokens_total{tenant="acme",model="tiny",kind="prompt"} 100
headgate_tokens_total{tenant="acme",model="tiny",kind="cached"} 50
headgate_refusals_total{tenant="acme",limit="requests"} 0
headgate_ttft_seconds_bucket{model="tiny",version="v1",le="0.1"} 0
headgate_ttft_seconds_bucket{model="tiny",version="v1",le="1.0"} 0
headgate_ttft_seconds_bucket{model="tiny",version="v1",le="+Inf"} 0
headgate_store_available 1
"""
AFTER = """
headgate_answers_total{model="tiny",version="v1",class="2xx",ended="complete"} 28
headgate_answers_total{model="tiny",version="v1",class="5xx",ended="complete"} 2
headgate_requests_total{tenant="acme",model="tiny",api="chat",status="200"} 30
headgate_tokens_total{tenant="acme",model="tiny",kind="prompt"} 300
headgate_tokens_total{tenant="acme",model="tiny",kind="cached"} 150
headgate_tokens_total{tenant="acme",model="tiny",kind="completion"} 100
headgate_refusals_total{tenant="acme",limit="requests"} 4
headgate_limit_used_ratio{tenant="acme",limit="requests"} 0.8
headgate_limit_used_ratio{tenant="acme",limit="tokens"} 0.9
headgate_ttft_seconds_bucket{model="tiny",version="v1",le="0.1"} 10
headgate_ttft_seconds_bucket{model="tiny",version="v1",le="1.0"} 20
headgate_ttft_seconds_bucket{model="tiny",version="v1",le="+Inf"} 20
headgate_store_available 0
"""


@pytest.fixture
def between() -> Between:
    return Between(parse_samples(BEFORE), parse_samples(AFTER), 2.0)


def test_rates_are_per_second_and_cached_tokens_are_not_counted_twice(between: Between) -> None:
    (tenant,) = view(between).tenants
    assert (tenant.requests, tenant.refusals, tenant.tokens) == (10.0, 2.0, 150.0)
    (model,) = view(between).models
    assert (model.requests, model.errors) == (10.0, 1.0)


def test_quantiles_are_of_the_time_between_the_pages(between: Between) -> None:
    (model,) = view(between).models
    assert model.ttft_p50_s == pytest.approx(0.1)
    assert model.ttft_p95_s == pytest.approx(0.91)


def test_a_counter_that_began_again_has_no_negative_rate(between: Between) -> None:
    restarted = Between(between.after, between.before, 2.0)
    assert restarted.rate("headgate_requests_total", tenant="acme") == 5.0


def test_the_fullest_limit_comes_first(between: Between) -> None:
    assert [row.limit for row in view(between).limits] == ["tokens", "requests"]


def test_a_screen_says_that_the_store_is_away_and_that_a_vllm_is_silent(between: Between) -> None:
    lines = screen(view(between, [pod("tiny v1", None)]), "head").splitlines()
    assert lines[0] == "head  STORE AWAY"
    assert lines[1] == "10.0 requests/s  2.0 refused by limits/s  150 tokens/s"
    assert lines[-1].split() == ["tiny", "v1", "-", "-", "-"]


def test_no_row_and_no_table_without_traffic() -> None:
    empty = parse_samples("headgate_store_available 1\n")
    assert "MODEL" not in screen(view(Between(empty, empty, 1.0)), "head")


def test_one_screen_of_a_real_box_shows_its_tenant_limit_and_vllm(tmp_path: Path) -> None:
    limits = "\n      - {count: requests, limit: 4, per: day}\n"
    with (
        started_simulator("--model", "tiny", "--adapter", "lora-a") as upstream,
        running_box(tmp_path, policy(upstream, limits=limits)) as box,
    ):
        box.record_of(box.chat().headers["x-request-id"])
        command = [sys.executable, "-m", "headgate", "top", "--once", "--interval-s", "0.5"]
        command += ["--admin", box.admin_url.removeprefix("http://")]
        command += ["--policy", str(tmp_path / "headgate.yaml")]
        shown = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (shown.returncode, shown.stderr) == (0, "")
    for expected in ("store available", "MODEL", "TENANT", "acme", "25%", "VLLM"):
        assert expected in shown.stdout


def test_services_that_do_not_answer_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headgate", "top", "--once", "--admin", "127.0.0.1:1"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert shown.returncode == 1
    assert shown.stderr.count("\n") == 1
    assert "--admin" in shown.stderr
