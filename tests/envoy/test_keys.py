"""Keys that are issued while the box runs, through a real Envoy and its own PostgreSQL."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.clock import SystemClock
from headgate.core.policy import CompiledPolicy, Count, Per
from headgate.database.address import database_address
from headgate.identity.change_log import Actor
from headgate.identity.keys import KeyRequest
from headgate.identity.limits import KeyLimit
from headgate.identity.store import IssuedKey, KeyStore
from headgate.policy import load_policy
from headgate.program.postgres.folder import APPLICATION, DATABASE
from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import Upstream
from tests.identity.builders import connect_to
from tests.patience import PATIENCE_S, wait_until
from tests.postgres_server import temporary_folder

BY = Actor("operator", "test")


class Desk:
    """The box, and the store of its keys as the management API will have it."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        url = (
            f"postgresql://{APPLICATION}@/{DATABASE}?host={folder}/socket&passfile={folder}/pgpass"
        )
        self.address = database_address(url)
        self.store = KeyStore(connect_to(self.address), SystemClock())
        self.policy: CompiledPolicy = load_policy(box.folder / "headgate.yaml")
        self.folder = folder

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work)

    def issue(self, **narrower: Any) -> IssuedKey:
        request = KeyRequest(tenant="acme", user="rita", **narrower)
        return self.run(self.store.issue(request, self.policy, BY))

    def status(self, issued: IssuedKey, **fields: Any) -> int:
        return self.ask(issued, **fields).status_code

    def ask(self, issued: IssuedKey, **fields: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {issued.secret.secret}"}
        return httpx.post(
            f"{self.box.url}/v1/chat/completions", json={**small_chat(), **fields}, headers=headers
        )

    def wait(self, issued: IssuedKey, status: int) -> None:
        wait_until(lambda: self.status(issued) == status, f"the status {status}", PATIENCE_S)


@pytest.fixture(scope="module")
def desk(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with temporary_folder() as folder:
        options = ("--database-dir", str(folder / "db"), "--auth-failures-per-minute", "1000000")
        home = tmp_path_factory.mktemp("keys")
        with running_box(home, policy(upstream.url), *options) as box:
            yield Desk(box, folder / "db")


def test_a_key_works_soon_after_it_is_issued_and_not_after_it_is_revoked(desk: Desk) -> None:
    issued = desk.issue()
    desk.wait(issued, 200)

    desk.run(desk.store.revoke(issued.key.id, BY))

    desk.wait(issued, 401)


def test_the_record_names_the_key_and_its_user(desk: Desk) -> None:
    issued = desk.issue()
    desk.wait(issued, 200)

    record = desk.box.record_of(desk.ask(issued).headers["x-request-id"])

    assert (record["tenant"], record["user"], record["key"]) == ("acme", "rita", issued.key.id)


def test_both_secrets_of_a_rotated_key_work_during_the_overlap(desk: Desk) -> None:
    old = desk.issue()
    new = desk.run(desk.store.rotate(old.key.id, 3600, BY))

    desk.wait(new, 200)
    assert desk.status(old) == 200


def test_a_key_for_one_model_gets_no_other_and_sees_no_other(desk: Desk) -> None:
    issued = desk.issue(models=("sql-expert",))
    headers = {"authorization": f"Bearer {issued.secret.secret}"}
    desk.wait(issued, 403)

    refused = desk.ask(issued, model="tiny").json()["error"]
    listed = httpx.get(f"{desk.box.url}/v1/models", headers=headers).json()["data"]

    assert "Your key may not use the model 'tiny'" in refused["message"]
    assert desk.status(issued, model="sql-expert") == 200
    assert [model["id"] for model in listed] == ["sql-expert"]


def test_the_limit_of_a_key_refuses_it_alone_and_is_listed_for_its_owner(desk: Desk) -> None:
    issued = desk.issue(limits=(KeyLimit(Count.REQUESTS, 2, Per.YEAR),))
    desk.wait(issued, 200)
    desk.wait(issued, 429)
    headers = {"authorization": f"Bearer {issued.secret.secret}"}

    limits = httpx.get(f"{desk.box.url}/v1/headgate/limits", headers=headers).json()["data"]

    assert [(one["count"], one["limit"], one["remaining"]) for one in limits] == [
        ("requests", 2, 0)
    ]
    assert desk.box.chat().status_code == 200


def test_while_postgresql_hangs_known_keys_pass_and_strangers_do_not(desk: Desk) -> None:
    issued = desk.issue()
    desk.wait(issued, 200)
    pid = int((desk.folder / "data" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    every = [pid, *map(int, children)]
    for process in every:
        os.kill(process, signal.SIGSTOP)
    try:
        assert desk.status(issued) == 200
        stranger = {"authorization": "Bearer sk-hg-stranger"}
        url = f"{desk.box.url}/v1/chat/completions"
        assert httpx.post(url, json=small_chat(), headers=stranger).status_code == 401
    finally:
        for process in every:
            os.kill(process, signal.SIGCONT)
    desk.run(desk.store.revoke(issued.key.id, BY))
    desk.wait(issued, 401)


def test_a_limit_of_cost_of_a_key_refuses_what_costs_more(desk: Desk) -> None:
    rich, poor = (desk.issue(limits=(KeyLimit(Count.COST, most, Per.DAY),)) for most in (10**9, 1))

    desk.wait(rich, 200)
    desk.wait(poor, 429)
