"""The official clients work unchanged through Envoy, and see their own typed errors."""

import anthropic
import openai
import pytest

from tests.box import KEYS, Box

TO_THE_END = {"ignore_eos": True}
"""A random model may end an answer by chance; vLLM then goes on to the maximum."""
PROMPT = [{"role": "user", "content": "Say something short."}]


@pytest.fixture
def client(box: Box):
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"], max_retries=0) as made:
        yield made


@pytest.fixture
def messages_client(box: Box):
    with anthropic.Anthropic(base_url=box.url, api_key=KEYS["alice"], max_retries=0) as made:
        yield made


def test_a_chat_completion_has_its_usage(box: Box, client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="tiny", temperature=0, messages=PROMPT, max_tokens=7
    )
    usage = answer.parse().usage

    record = box.record_of(answer.headers["x-request-id"])
    assert usage is not None
    assert usage.completion_tokens == 7
    assert (usage.prompt_tokens, 7) == (record["prompt_tokens"], record["completion_tokens"])
    assert record["source"] == "usage"


def test_a_stream_without_usage_asked_shows_none_and_is_metered(
    box: Box, client: openai.OpenAI
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", temperature=0, messages=PROMPT, max_tokens=9, stream=True
    )
    chunks = list(raw.parse())

    record = box.record_of(raw.headers["x-request-id"])
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert record["completion_tokens"] == 9
    assert record["source"] == "usage"
    assert record["ttft_s"] > 0


def test_a_stream_with_usage_asked_shows_it_once_at_the_end(
    box: Box, client: openai.OpenAI
) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            temperature=0,
            messages=PROMPT,
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    assert with_usage == [chunks[-1]]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 9


def test_completions_with_two_choices_are_metered_as_their_sum(
    box: Box, client: openai.OpenAI
) -> None:
    raw = client.completions.with_raw_response.create(
        model="tiny", prompt=["one two three", "four"], max_tokens=5, n=2, extra_body=TO_THE_END
    )
    usage = raw.parse().usage

    record = box.record_of(raw.headers["x-request-id"])
    assert usage is not None
    assert usage.completion_tokens == 20
    assert record["completion_tokens"] == 20
    assert record["prompt_tokens"] == usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_responses_are_metered(box: Box, client: openai.OpenAI, stream: bool) -> None:
    raw = client.responses.with_raw_response.create(
        model="tiny", temperature=0, input="Hello there", max_output_tokens=6, stream=stream
    )
    answer = raw.parse()
    if stream:
        answer = list(answer)[-1].response

    record = box.record_of(raw.headers["x-request-id"])
    assert answer.usage.output_tokens == record["completion_tokens"] == 6
    assert answer.usage.input_tokens == record["prompt_tokens"]


def test_an_adapter_is_called_by_its_alias(box: Box, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sql-expert", temperature=0, messages=PROMPT, max_tokens=3
    )

    record = box.record_of(raw.headers["x-request-id"])
    assert raw.parse().model == "sql-expert"
    assert (record["model"], record["base"], record["adapter"]) == ("sql-expert", "tiny", "lora-a")


def test_the_model_list_holds_the_tenants_own_models_only(client: openai.OpenAI) -> None:
    assert sorted(model.id for model in client.models.list()) == ["sql-expert", "tiny"]


def test_a_message_of_the_anthropic_client_has_its_usage(
    box: Box, messages_client: anthropic.Anthropic
) -> None:
    raw = messages_client.messages.with_raw_response.create(
        model="tiny", messages=PROMPT, max_tokens=8, extra_body={"temperature": 0}
    )
    message = raw.parse()

    record = box.record_of(raw.headers["x-request-id"])
    assert message.usage.output_tokens == record["completion_tokens"] == 8
    assert record["api"] == "messages"


def test_a_streamed_message_of_the_anthropic_client_is_metered(
    box: Box, messages_client: anthropic.Anthropic
) -> None:
    with messages_client.messages.stream(
        model="tiny", messages=PROMPT, max_tokens=8, extra_body={"temperature": 0}
    ) as stream:
        text = "".join(stream.text_stream)
        request_id = stream.response.headers["x-request-id"]

    assert text
    assert box.record_of(request_id)["completion_tokens"] == 8


def test_a_wrong_key_is_an_authentication_error(box: Box) -> None:
    wrong = {"api_key": "sk-wrong", "max_retries": 0}
    with (
        openai.OpenAI(base_url=f"{box.url}/v1", **wrong) as client,
        pytest.raises(openai.AuthenticationError) as openai_error,
    ):
        client.models.list()
    with (
        anthropic.Anthropic(base_url=box.url, **wrong) as messages_client,
        pytest.raises(anthropic.AuthenticationError) as anthropic_error,
    ):
        messages_client.messages.create(model="tiny", messages=PROMPT, max_tokens=1)

    assert openai_error.value.code == "invalid_api_key"
    assert anthropic_error.value.body["error"]["type"] == "authentication_error"


def test_an_unknown_model_is_a_not_found_error(
    client: openai.OpenAI, messages_client: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="nobody", messages=PROMPT)
    with pytest.raises(anthropic.NotFoundError):
        messages_client.messages.create(model="nobody", messages=PROMPT, max_tokens=1)

    assert error.value.code == "model_not_found"
    assert error.value.param == "model"


def test_anothers_adapter_looks_like_one_that_does_not_exist(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as theirs:
        client.chat.completions.create(model="private", messages=PROMPT)
    with pytest.raises(openai.NotFoundError) as nobodys:
        client.chat.completions.create(model="nobody", messages=PROMPT)

    assert theirs.value.message.replace("private", "X") == nobodys.value.message.replace(
        "nobody", "X"
    )
