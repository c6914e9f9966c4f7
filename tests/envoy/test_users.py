"""Blocked users through a real Envoy, on both paths."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.core.clock import SystemClock
from headgate.identity.users import UserStore
from tests.box import policy, running_box
from tests.envoy.conftest import Upstream
from tests.envoy.test_keys import BY, Desk
from tests.identity.builders import connect_to
from tests.patience import wait_until
from tests.postgres_server import temporary_folder


@pytest.fixture(scope="module", params=["standard", "lean"])
def desk(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    home: Path = tmp_path_factory.mktemp("users")
    with temporary_folder() as folder:
        options = ("--database-dir", str(folder / "db"), "--path", request.param)
        with running_box(home, policy(upstream.url), *options) as box:
            yield Desk(box, folder / "db")


def test_a_blocked_user_is_refused_by_both_of_their_keys_and_others_are_not(desk: Desk) -> None:
    users = UserStore(connect_to(desk.address), SystemClock())
    issued = desk.issue()
    desk.wait(issued, 200)

    asyncio.run(users.block("acme", "rita", BY))
    asyncio.run(users.block("acme", "alice", BY))

    desk.wait(issued, 403)
    wait_until(lambda: desk.box.chat().status_code == 403, "the block")
    refused = desk.box.chat()
    assert refused.json()["error"]["code"] == "user_blocked"
    assert desk.box.chat(user="bob").status_code == 200
    asyncio.run(users.unblock("acme", "alice", BY))
    wait_until(lambda: desk.box.chat().status_code == 200, "the end of the block")
