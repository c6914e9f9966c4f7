"""One connection for the commands of a process: what is written, sent again, and given up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hiredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from headgate.core.redis_client import redis_client
from ratelimit.store.commands import Commands, commands_to
from ratelimit.store.redis import RedisStore
from tests.ratelimit.builders import NOW_S, Shop, requests, spent
from tests.redis_server import PATIENT_S, RedisServer, running_redis

SHORT_S = 0.05
Answer = Callable[[int, str], bytes | None]
"""The bytes that the connection of this number answers to a command; None closes it."""


@dataclass
class Peer:
    """A server that speaks Redis' protocol, and what it was sent by connection."""

    answer: Answer
    heard: list[list[str]] = field(default_factory=list)
    serving: list["asyncio.Task[None] | None"] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.heard)
        heard: list[str] = []
        self.heard.append(heard)
        self.serving.append(asyncio.current_task())
        parser = hiredis.Reader(encoding="utf-8")
        while data := await reader.read(65536):
            parser.feed(data)
            while (words := parser.gets()) is not False:
                if words[0] in ("CLIENT", "SELECT"):
                    writer.write(b"+OK\r\n")
                    continue
                heard.append(words[0])
                answer = self.answer(number, words[0])
                if answer is None:
                    writer.close()
                    return
                writer.write(answer)
        writer.close()


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[tuple[Peer, Commands]]:
    """A running peer, and commands to it."""
    there = Peer(answer)
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = redis_client(f"redis://127.0.0.1:{port}")
    commands = commands_to(client)
    yield there, commands
    await commands.close()
    await client.aclose()
    server.close()
    await asyncio.gather(*filter(None, there.serving))


def reads(server: RedisServer) -> int:
    """How often Redis has read from a connection."""
    with contextlib.closing(server.client()) as client:
        return int(client.info("stats")["total_reads_processed"])


async def test_the_commands_of_one_round_of_the_loop_are_one_write() -> None:
    shop = Shop()
    with running_redis() as server:
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        await store.reserve(shop.ask(requests(1000), id="before"))
        await store.settle("before", shop.tenant, spent(1, 1), NOW_S)
        before = reads(server)
        idle = reads(server) - before
        before += idle
        await asyncio.gather(
            *(store.reserve(shop.ask(requests(1000))) for _ in range(8)),
            *(store.settle(f"{n}", shop.tenant, spent(1, 1), NOW_S) for n in range(8)),
        )
        taken = reads(server) - before - idle
        await store.close()

    assert taken == 1


async def test_a_command_does_not_wait_for_the_answers_to_others() -> None:
    with running_redis() as server:
        client = redis_client(server.url)
        commands = commands_to(client)
        await commands.execute(("PING",), PATIENT_S)
        server.freeze()
        asked = []
        for number in range(5):
            asked.append(asyncio.ensure_future(commands.execute(("ECHO", number), PATIENT_S)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        before = [task.done() for task in asked]
        server.thaw()
        answers = await asyncio.gather(*asked)
        await commands.close()
        await client.aclose()

    assert before == [False] * 5
    assert answers == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_command_is_sent_once_more_when_its_connection_breaks() -> None:
    async with peer(lambda number, _: b"+OK\r\n" if number else None) as (there, commands):
        assert await commands.execute(("GET", "a"), PATIENT_S) == b"OK"

    assert there.heard == [["GET"], ["GET"]]


async def test_a_command_is_never_sent_a_third_time() -> None:
    async with peer(lambda *_: None) as (there, commands):
        with pytest.raises(RedisConnectionError):
            await commands.execute(("GET", "a"), PATIENT_S)

    assert there.heard == [["GET"], ["GET"]]


async def test_a_command_that_must_not_be_repeated_fails_when_its_connection_breaks() -> None:
    async with peer(lambda number, _: b"+OK\r\n" if number else None) as (there, commands):
        once = commands.execute(("INCR", "a"), PATIENT_S, repeats=False)
        again = commands.execute(("GET", "a"), PATIENT_S)
        failed, answered = await asyncio.gather(once, again, return_exceptions=True)

    assert isinstance(failed, RedisConnectionError)
    assert answered == b"OK"
    assert there.heard == [["INCR"], ["GET"]]


async def test_a_connection_from_which_nothing_comes_is_given_up() -> None:
    async with peer(lambda number, _: b"+OK\r\n" if number else b"") as (there, commands):
        with pytest.raises(TimeoutError):
            await commands.execute(("GET", "a"), SHORT_S)
        assert await commands.execute(("GET", "b"), PATIENT_S) == b"OK"

    assert len(there.heard) == 2


async def test_a_connection_that_answers_others_is_kept() -> None:
    async with peer(lambda _, word: b"" if word == "SLOW" else b"+OK\r\n") as (there, commands):
        await commands.execute(("GET", "a"), PATIENT_S)
        quick = asyncio.ensure_future(commands.execute(("GET", "b"), PATIENT_S))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await commands.execute(("SLOW",), SHORT_S)
        assert await quick == b"OK"

    assert there.heard == [["GET", "GET", "SLOW"]]


async def test_closing_ends_what_is_under_way() -> None:
    async with peer(lambda *_: b"") as (_, commands):
        waiting = asyncio.ensure_future(commands.execute(("GET", "a"), PATIENT_S))
        await asyncio.sleep(SHORT_S)
        await commands.close()
        with pytest.raises(RedisConnectionError):
            await waiting
