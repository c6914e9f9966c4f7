"""/metrics: vLLM's names and labels, and what counts."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from headgate.simulator.exposition import Exposition
from headgate.simulator.generate import plan
from headgate.simulator.metrics import EngineMetrics
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.server import running
from headgate.simulator.settings import Settings
from tests.fakes import FakeClock
from tests.simulator.metrics_page import read, read_until, samples_of, value
from tests.simulator.requests_and_events import CHAT, COMPLETIONS, GENERATING, asking, events_of


@pytest.fixture
async def own() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server of the test's own."""
    settings = Settings(adapters=("lora-a",), ttft_s=0, token_interval_s=0)
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        yield http


async def test_tokens_of_every_api_add_up(own: httpx.AsyncClient) -> None:
    prompt, generated = 0, 0
    for path in GENERATING:
        usage = (await own.post(path, json=asking(path))).json()["usage"]
        prompt += usage.get("prompt_tokens") or usage["input_tokens"]
        generated += usage.get("completion_tokens") or usage["output_tokens"]

    samples = await read(own)

    assert value(samples, "prompt_tokens_total") == prompt
    assert value(samples, "generation_tokens_total") == generated == 20
    assert value(samples, "request_success_total", finished_reason="length") == 4
    assert value(samples, "time_to_first_token_seconds_count") == 4
    assert value(samples, "inter_token_latency_seconds_count") == 16
    assert value(samples, "e2e_request_latency_seconds_count") == 4


async def test_each_of_n_choices_is_an_engine_request_with_a_prompt(own: httpx.AsyncClient) -> None:
    body = asking(COMPLETIONS, max_tokens=2, prompt=["four", "eight..."], n=3)
    usage = (await own.post(COMPLETIONS, json=body)).json()["usage"]
    samples = await read(own)

    assert usage["prompt_tokens"] == 3
    assert value(samples, "prompt_tokens_total") == 9
    assert value(samples, "generation_tokens_total") == usage["completion_tokens"] == 12
    assert value(samples, "request_success_total", finished_reason="length") == 6


async def test_a_client_that_leaves_stops_the_generation_at_once(own: httpx.AsyncClient) -> None:
    headers = {"x-simulate": "interval=0.02"}
    text = ""
    body = asking(CHAT, 5000, stream=True)
    async with own.stream("POST", CHAT, json=body, headers=headers) as answer:
        async for part in answer.aiter_text():
            text += part
            if len(events_of(text)) >= 4:
                break
        assert value(await read(own), "num_requests_running") == 1
    samples = await read_until(own, "num_requests_running", 0)

    assert 3 <= value(samples, "generation_tokens_total") < 100
    assert value(samples, "prompt_tokens_total") > 0
    assert value(samples, "time_to_first_token_seconds_count") == 1
    assert value(samples, "request_success_total", finished_reason="abort") == 0
    assert value(samples, "e2e_request_latency_seconds_count") == 0
    assert value(await read(own), "generation_tokens_total") == value(
        samples, "generation_tokens_total"
    )


async def test_a_client_that_leaves_before_the_first_token_costs_nothing(
    own: httpx.AsyncClient,
) -> None:
    headers = {"x-simulate": "ttft=3600"}
    waiting = asyncio.create_task(own.post(CHAT, json=asking(CHAT), headers=headers))
    await read_until(own, "num_requests_running", 1)
    waiting.cancel()
    samples = await read_until(own, "num_requests_running", 0)

    assert value(samples, "prompt_tokens_total") == 0
    assert value(samples, "generation_tokens_total") == 0


async def test_an_adapter_is_seen_only_in_lora_requests_info(own: httpx.AsyncClient) -> None:
    await own.post(CHAT, json=asking(CHAT, model="lora-a"))
    samples = await read(own)

    assert value(samples, "prompt_tokens_total") > 0
    adapters = {
        dict(labels)["running_lora_adapters"]
        for name, labels in samples
        if name == "vllm:lora_requests_info"
    }
    assert adapters == {"lora-a", ""}


def test_times_are_observed_for_each_choice() -> None:
    clock = FakeClock()
    metrics = EngineMetrics(clock)
    page = Exposition("tiny", metrics, Scheduler(Settings()))
    choices = plan([10], 2, max_tokens=2, natural_tokens=None, context=100, default_tokens=64)

    run = metrics.start(choices, 0, None)
    clock.advance(0.3)
    metrics.step(run, 2)
    clock.advance(0.03)
    metrics.step(run, 2)
    shown = samples_of(page.page().decode())
    assert value(shown, "num_requests_running") == 2
    assert value(shown, "kv_cache_usage_perc") == pytest.approx(24e-6)
    metrics.finish(run)
    metrics.end(run)
    shown = samples_of(page.page().decode())

    assert value(shown, "time_to_first_token_seconds_bucket", le="0.25") == 0
    assert value(shown, "time_to_first_token_seconds_bucket", le="0.5") == 2
    assert value(shown, "inter_token_latency_seconds_sum") == pytest.approx(0.06)
    assert value(shown, "e2e_request_latency_seconds_bucket", le="0.5") == 2
    assert value(shown, "num_requests_running") == 0


def test_a_failed_request_is_finished_by_error() -> None:
    metrics = EngineMetrics(FakeClock())
    choices = plan([1], 1, max_tokens=1, natural_tokens=None, context=9, default_tokens=1)
    metrics.finish(metrics.start(choices, 0, None), failed=True)

    assert metrics.finished["error"] == 1


def test_only_the_latest_sets_of_adapters_are_kept() -> None:
    clock = FakeClock()
    metrics = EngineMetrics(clock)
    choices = plan([1], 1, max_tokens=1, natural_tokens=None, context=9, default_tokens=1)
    for number in range(300):
        metrics.end(metrics.start(choices, 0, f"lora-{number}"))

    assert len(metrics.lora_seen) == 100
    assert "lora-299" in metrics.lora_seen
