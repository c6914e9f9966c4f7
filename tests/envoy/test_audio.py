"""Transcriptions and translations: forms, which stay in the proxy, at a price of the policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest

from tests.box import KEYS, Box, policy, running_box
from tests.envoy.conftest import LIMITS, Upstream
from tests.patience import wait_until

AUDIO = b"RIFF" + bytes(range(256)) * 1000
PRICE = 500
MORE = f"without_usage: {{transcriptions: {PRICE}, translations: free}}\n"

pytestmark = pytest.mark.simulator  # a real vLLM has these routes only with a model that hears


@pytest.fixture(scope="module")
def box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("audio")
    with running_box(folder, policy(upstream.url, limits=LIMITS, more=MORE)) as running:
        yield running


@pytest.fixture(scope="module")
def shut(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("audio-shut")
    with running_box(folder, policy(upstream.url, limits=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def by_second(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("audio-seconds")
    more = "without_usage: {transcriptions: {tokens_per_second: 40}}\n"
    limits = f"{LIMITS}      - {{count: cost, limit: 10, per: year}}\n"
    with running_box(folder, policy(upstream.url, limits=limits, more=more)) as running:
        yield running


@contextmanager
def client(box: Box) -> Iterator[openai.OpenAI]:
    url = f"{box.url}/v1"
    with openai.OpenAI(base_url=url, api_key=KEYS["alice"], max_retries=0) as ours:
        yield ours


@pytest.mark.parametrize("model", ["tiny", "sql-expert"])
def test_the_official_client_transcribes_and_is_charged_the_price(box: Box, model: str) -> None:
    with client(box) as ours:
        raw = ours.audio.transcriptions.with_raw_response.create(
            file=("a.wav", AUDIO), model=model, language="en"
        )
    record = box.record_of(raw.headers["x-request-id"])

    assert raw.parse().text
    assert (record["api"], record["model"]) == ("transcriptions", model)
    assert record["prompt_tokens"] == record["estimated_tokens"] == PRICE
    assert (record["completion_tokens"], record["source"]) == (0, "estimate")
    assert record["request_bytes"] > len(AUDIO)


@pytest.mark.parametrize("model", ["tiny", "sql-expert"])
def test_a_stream_passes_as_it_comes_and_costs_the_same(box: Box, model: str) -> None:
    """vLLM has another name for the second model: it is put into the form, and taken back."""
    asked = {"stream_include_usage": True}
    with client(box) as ours:
        stream = ours.audio.transcriptions.with_raw_response.create(
            file=("a.wav", AUDIO), model=model, stream=True, extra_body=asked
        )
        text = stream.http_response.read().decode()
    record = box.record_of(stream.headers["x-request-id"])

    assert text.count("transcription.chunk") > 2
    assert f'"model":"{model}"' in text
    assert '"usage"' in text
    assert (record["prompt_tokens"], record["source"], record["stream"]) == (
        PRICE,
        "estimate",
        True,
    )


def test_a_free_translation_costs_no_token(box: Box) -> None:
    files = {"file": ("a.wav", AUDIO)}
    url = f"{box.url}/v1/audio/translations"
    answer = httpx.post(url, data={"model": "tiny"}, files=files, headers=box.headers())
    record = box.record_of(answer.headers["x-request-id"])

    assert answer.json()["text"]
    assert (record["api"], record["prompt_tokens"]) == ("translations", 0)


def test_an_audio_model_of_others_does_not_exist(box: Box) -> None:
    with client(box) as ours, pytest.raises(openai.NotFoundError) as error:
        ours.audio.transcriptions.create(file=("a.wav", AUDIO), model="private")
    assert error.value.code == "model_not_found"


def test_what_is_refused_by_vllm_is_given_back(box: Box) -> None:
    with client(box) as ours, pytest.raises(openai.BadRequestError) as error:
        ours.audio.transcriptions.create(file=("a.wav", AUDIO), model="tiny", response_format="srt")
    record = box.record_of(error.value.response.headers["x-request-id"])
    assert (record["source"], record["prompt_tokens"]) == ("refund", 0)


@pytest.mark.parametrize("name", ["n", "use_beam_search", "vllm_xargs"])
def test_a_field_that_multiplies_the_work_is_not_served(box: Box, name: str) -> None:
    with client(box) as ours, pytest.raises(openai.BadRequestError) as error:
        ours.audio.transcriptions.create(
            file=("a.wav", AUDIO), model="tiny", extra_body={name: "2"}
        )
    assert error.value.param == name


def test_a_body_that_is_no_form_is_refused_with_what_is_needed(box: Box) -> None:
    answer = box.post("/v1/audio/transcriptions", {"model": "tiny"})

    assert answer.status_code == 400
    assert "multipart form" in answer.json()["error"]["message"]


def test_without_a_price_there_is_no_such_path(shut: Box) -> None:
    with client(shut) as ours, pytest.raises(openai.NotFoundError):
        ours.audio.transcriptions.create(file=("a.wav", AUDIO), model="tiny")


@pytest.mark.parametrize("shape", ["json", "verbose_json"])
def test_where_a_second_has_a_price_the_audio_costs_what_vllm_says_it_lasted(
    by_second: Box, shape: Literal["json", "verbose_json"]
) -> None:
    """256,004 bytes are 9 seconds of the simulator's 32,000 bytes each, the last one begun."""
    with client(by_second) as ours:
        raw = ours.audio.transcriptions.with_raw_response.create(
            file=("a.wav", AUDIO), model="tiny", response_format=shape
        )
    record = by_second.record_of(raw.headers["x-request-id"])

    assert record["audio_seconds"] == 9
    assert (record["prompt_tokens"], record["completion_tokens"]) == (9 * 40, 0)
    assert record["source"] == "usage"
    assert record["estimated_tokens"] >= 9 * 40
    assert record["cost"] == pytest.approx(9 * (0.006 + 40 * 0.2e-6), abs=1e-9)


def test_a_limit_of_cost_takes_the_seconds_that_the_record_has(by_second: Box) -> None:
    with client(by_second) as ours:
        before = _spent(by_second)
        raw = ours.audio.transcriptions.with_raw_response.create(
            file=("a.wav", AUDIO), model="tiny", response_format="json"
        )
    record = by_second.record_of(raw.headers["x-request-id"])

    wait_until(lambda: abs(_spent(by_second) - before - record["cost"]) < 1e-9, "the settlement")


def _spent(box: Box) -> float:
    limits = httpx.get(f"{box.url}/v1/headgate/limits", headers=box.headers()).json()["data"]
    return next(float(limit["used"]) for limit in limits if limit["count"] == "cost")


@pytest.mark.parametrize("model", ["tiny", "sql-expert"])
def test_a_stream_by_the_second_costs_its_tokens_and_shows_no_usage_that_was_not_asked_for(
    by_second: Box, model: str
) -> None:
    with client(by_second) as ours:
        stream = ours.audio.transcriptions.with_raw_response.create(
            file=("a.wav", AUDIO), model=model, stream=True
        )
        text = stream.http_response.read().decode()
    record = by_second.record_of(stream.headers["x-request-id"])

    assert text.count("transcription.chunk") > 2
    assert '"usage"' not in text
    assert (record["prompt_tokens"], record["source"]) == (4 + 9 * 50, "usage")
    assert record["completion_tokens"] == text.count("transcription.chunk")
