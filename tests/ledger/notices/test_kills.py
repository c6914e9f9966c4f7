"""A replica that is killed between deciding and sending leaves its notices to the others."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.ledger.builders import rows
from tests.ledger.notices.builders import MODELS, Site, hook_channel, policy_of
from tests.ledger.notices.receivers import Hook, hook_receiver
from tests.patience import PATIENCE_S
from tests.postgres_server import PostgresServer

MONTH = "{count: tokens, limit: 1000, per: month, notify: [50]}"
REPLICA = """
import asyncio, os, signal, sys
from functools import partial
from unittest.mock import patch
from prometheus_client import CollectorRegistry
from headgate.core.metrics import Metrics
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.ledger.notices import outbox
from headgate.ledger.notices.looking import NoticeKeeper
from headgate.policy import parse_policy
from tests.fakes import FakeClock
from tests.ledger.notices.builders import NOW_S

class Store:
    async def peek(self, query):
        return {key: 500 for key in query.counters}

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

policy = parse_policy(sys.argv[2].encode(), "headgate.yaml")
clock = FakeClock(NOW_S)
connect = partial(connected, database_address(sys.argv[1]))
keeper = NoticeKeeper(connect, lambda: policy, Store(), clock, Metrics(CollectorRegistry(), clock))
with patch(f"headgate.ledger.notices.{sys.argv[3]}", die):
    asyncio.run(keeper.turn())
"""


def run_and_die(site: Site, text: str, where: str) -> None:
    """A replica runs one turn, and is killed at this call."""
    url = site.server.server.folder.url("headgate", "clean")
    done = subprocess.run([sys.executable, "-c", REPLICA, url, text, where], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()


def text_of(channel: str) -> str:
    return f"{MODELS}{channel}\ntenants:\n  acme:\n    models: [tiny]\n    limits: [{MONTH}]\n"


async def turns_until(site: Site, hook: Hook, sent: int) -> None:
    """Another replica takes its turns. The dead one's locks end when the database sees its end."""
    keeper = site.keeper()
    async with asyncio.timeout(PATIENCE_S):
        while len(hook.got) < sent:
            await keeper.turn()


async def test_killed_between_deciding_and_sending_another_sends_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        channel = hook_channel(tmp_path, hook.url)
        site = Site(postgres, policy_of(MONTH, channels=channel))
        run_and_die(site, text_of(channel), "outbox.next_due")
        assert hook.got == []
        await site.use(500)
        await turns_until(site, hook, 1)

    assert (len(hook.got), await site.decided()) == (1, ["50"])


async def test_killed_after_sending_it_is_sent_again_with_the_same_id(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        channel = hook_channel(tmp_path, hook.url)
        site = Site(postgres, policy_of(MONTH, channels=channel))
        run_and_die(site, text_of(channel), "outbox.note_sent")
        await site.use(500)
        await turns_until(site, hook, 2)

    assert len(hook.got) == 2
    assert len({headers["webhook-id"] for headers, _ in hook.got}) == 1


async def test_killed_while_it_decides_nothing_is_half_decided(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        channel = hook_channel(tmp_path, hook.url)
        site = Site(postgres, policy_of(MONTH, channels=channel))
        run_and_die(site, text_of(channel), "outbox.worth_sending")
        assert await rows(postgres, "select 1 from headgate.notice") == []
        await site.use(500)
        await turns_until(site, hook, 1)

    assert (len(hook.got), await site.decided()) == (1, ["50"])
