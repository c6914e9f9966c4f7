"""Calls about one key follow each other, and calls about others do not wait."""

import asyncio

from ratelimit.store.concurrency import Turns


async def test_calls_with_one_key_run_one_after_the_other_and_all_run() -> None:
    turns, events = Turns(), list[str]()

    async def call(name: str, key: str) -> None:
        async with turns.of(key):
            events.append(f"{name} begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            events.append(f"{name} ends")

    await asyncio.gather(call("a", "one"), call("b", "one"), call("other", "two"), call("c", "one"))

    of_one = [event for event in events if not event.startswith("other")]
    assert of_one[::2] == [f"{event[0]} begins" for event in of_one[1::2]]
    assert sorted(of_one[::2]) == ["a begins", "b begins", "c begins"]
    assert events.index("other begins") < events.index("a ends")


async def test_a_failed_call_hands_its_turn_on() -> None:
    turns = Turns()

    async def fails() -> None:
        async with turns.of("one"):
            await asyncio.sleep(0)
            raise OSError

    async def waits() -> str:
        async with turns.of("one"):
            return "its turn came"

    assert (await asyncio.gather(fails(), waits(), return_exceptions=True))[1] == "its turn came"
