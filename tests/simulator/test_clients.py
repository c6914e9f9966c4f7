"""The official clients work against the simulator as they do against vLLM."""

import anthropic
import openai
import pytest

TURN = "How much is one token?"


async def test_openai_chat_and_its_stream(fast_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fast_url}/v1", api_key="x") as client:
        whole = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": TURN}], max_tokens=5, n=2
        )
        stream = await client.chat.completions.create(
            model="lora-a",
            messages=[{"role": "user", "content": TURN}],
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    assert whole.usage is not None
    assert (len(whole.choices), whole.usage.completion_tokens) == (2, 10)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert (chunks[-1].model, chunks[-1].usage.completion_tokens) == ("lora-a", 5)


async def test_openai_completions_and_their_stream(fast_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fast_url}/v1", api_key="x") as client:
        whole = await client.completions.create(model="tiny", prompt=TURN, max_tokens=5)
        stream = await client.completions.create(
            model="tiny", prompt=TURN, max_tokens=5, stream=True
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])

    assert text == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5


async def test_openai_responses_and_their_stream(fast_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fast_url}/v1", api_key="x") as client:
        whole = await client.responses.create(model="tiny", input=TURN, max_output_tokens=5)
        async with client.responses.stream(model="tiny", input=TURN, max_output_tokens=5) as stream:
            async for _ in stream:
                pass
            streamed = await stream.get_final_response()

    assert streamed.output_text == whole.output_text
    assert streamed.usage is not None
    assert (streamed.status, streamed.usage.output_tokens) == ("incomplete", 5)


async def test_openai_embeddings_and_models(fast_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fast_url}/v1", api_key="x") as client:
        as_base64 = await client.embeddings.create(model="tiny", input=[TURN])
        as_floats = await client.embeddings.create(
            model="tiny", input=[TURN], encoding_format="float"
        )
        models = await client.models.list()

    assert as_base64.data[0].embedding == pytest.approx(as_floats.data[0].embedding)
    assert [model.id for model in models.data] == ["tiny", "lora-a"]


async def test_openai_errors_are_typed(fast_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fast_url}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.completions.create(model="x", prompt=TURN)
        with pytest.raises(openai.BadRequestError, match="at least 1"):
            await client.completions.create(model="tiny", prompt=TURN, max_tokens=-1)
        with pytest.raises(openai.InternalServerError):
            await client.completions.create(
                model="tiny", prompt=TURN, extra_headers={"x-simulate": "status=503"}
            )


async def test_anthropic_messages_and_their_stream(fast_url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=fast_url, api_key="x") as client:
        whole = await client.messages.create(
            model="tiny", max_tokens=5, messages=[{"role": "user", "content": TURN}]
        )
        async with client.messages.stream(
            model="lora-a", max_tokens=5, messages=[{"role": "user", "content": TURN}]
        ) as stream:
            text = await stream.get_final_text()
            final = await stream.get_final_message()

    assert whole.content[0].type == "text"
    assert whole.content[0].text == text
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 5)
    assert (final.usage.input_tokens, final.usage.output_tokens) == (whole.usage.input_tokens, 5)


async def test_anthropic_errors_are_typed(fast_url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=fast_url, api_key="x", max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(
                model="x", max_tokens=5, messages=[{"role": "user", "content": TURN}]
            )
