"""The batch: who enters it, and what its load costs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
from hypothesis import given
from hypothesis import strategies as st

from headgate.simulator.exchange import Exchange
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.server import running
from headgate.simulator.settings import Settings
from tests.simulator.metrics_page import read, read_until, value
from tests.simulator.requests_and_events import CHAT, asking


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with these settings."""
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        yield http


async def test_a_request_waits_until_the_batch_has_room() -> None:
    async with client_of(Settings(max_num_seqs=1, ttft_s=0, token_interval_s=0)) as client:
        endless = asyncio.create_task(
            client.post(CHAT, json=asking(CHAT, 2), headers={"x-simulate": "stall_after=0"})
        )
        await read_until(client, "num_requests_running", 1)
        waiting = asyncio.create_task(client.post(CHAT, json=asking(CHAT, 2)))
        await read_until(client, "num_requests_waiting", 1)
        endless.cancel()

        assert (await waiting).status_code == 200
        samples = await read(client)
    assert value(samples, "num_requests_waiting") == 0
    assert value(samples, "request_queue_time_seconds_count") == 2
    assert value(samples, "request_queue_time_seconds_sum") > 0
    assert value(samples, "time_to_first_token_seconds_sum") >= value(
        samples, "request_queue_time_seconds_sum"
    )


async def test_a_client_that_leaves_the_queue_takes_no_room() -> None:
    async with client_of(Settings(max_num_seqs=1, ttft_s=0, token_interval_s=0)) as client:
        endless = asyncio.create_task(
            client.post(CHAT, json=asking(CHAT, 2), headers={"x-simulate": "stall_after=0"})
        )
        await read_until(client, "num_requests_running", 1)
        leaving = asyncio.create_task(client.post(CHAT, json=asking(CHAT, 2)))
        await read_until(client, "num_requests_waiting", 1)
        leaving.cancel()
        await read_until(client, "num_requests_waiting", 0)
        endless.cancel()
        await read_until(client, "num_requests_running", 0)

        answer = await client.post(CHAT, json=asking(CHAT, 2))
        assert answer.status_code == 200


async def test_prompts_are_computed_one_after_the_other() -> None:
    scheduler = Scheduler(Settings(prefill_tokens_per_s=100))

    first_s, second_s = scheduler.prefill_s(50), scheduler.prefill_s(100)

    assert 0.4 < first_s <= 0.5
    assert first_s + 0.9 < second_s <= first_s + 1.0
    assert Scheduler(Settings()).prefill_s(1_000_000) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=60), st.integers(1, 6))
def test_the_batch_never_holds_more_than_its_bound(
    steps: list[tuple[bool, int]], bound: int
) -> None:
    """A request larger than the bound runs alone; the queue is first come, first served."""

    async def play() -> None:
        scheduler = Scheduler(Settings(max_num_seqs=bound))
        entered: list[int] = []
        order: list[int] = []
        tasks = []
        for number, (enters, sequences) in enumerate(steps):
            if enters:
                tasks.append(
                    asyncio.create_task(enter(scheduler, number, sequences, entered, order))
                )
            elif entered:
                scheduler.leave(steps[entered.pop(0)][1])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert scheduler.running == sum(steps[inside][1] for inside in entered)
            assert scheduler.running <= bound or len(entered) == 1
        assert order == sorted(order)
        for task in tasks:
            task.cancel()

    asyncio.run(play())


async def enter(
    scheduler: Scheduler, number: int, sequences: int, entered: list[int], order: list[int]
) -> None:
    """One request, which stays in the batch once it is there."""
    exchange = Exchange({"method": "POST", "path": CHAT, "headers": []}, _receive, _send)
    await scheduler.enter(exchange, sequences)
    entered.append(number)
    order.append(number)


async def _receive() -> dict[str, object]:
    return {}


async def _send(_message: object) -> None:
    return None


async def order_of(*policy: str) -> list[str]:
    """The order in which two requests leave the queue; the later one has the better priority."""
    settings = Settings(max_num_seqs=1, ttft_s=0, token_interval_s=0)
    settings = replace(settings, scheduling_policy="priority") if policy else settings
    ended: list[str] = []
    async with client_of(settings) as client:

        async def ask(priority: str) -> None:
            headers = {"x-vllm-priority": priority}
            await client.post(CHAT, json=asking(CHAT, 2), headers=headers)
            ended.append(priority)

        endless = asyncio.create_task(
            client.post(CHAT, json=asking(CHAT, 2), headers={"x-simulate": "stall_after=0"})
        )
        await read_until(client, "num_requests_running", 1)
        async with asyncio.TaskGroup() as group:
            for number, priority in enumerate(("9", "-1")):
                group.create_task(ask(priority))
                await read_until(client, "num_requests_waiting", number + 1)
            endless.cancel()
    return ended


async def test_the_smallest_priority_leaves_the_queue_first() -> None:
    assert await order_of("priority") == ["-1", "9"]


async def test_without_the_policy_a_priority_is_ignored() -> None:
    assert await order_of() == ["9", "-1"]
