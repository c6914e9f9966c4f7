"""The console in a real Chromium: of a real box as its operator, and with people of every role.

`make test-console` runs both. HEADGATE_SHOTS names a folder for pictures.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from headgate.console.routes import PAGES
from headgate.core.issuers import Person, Role
from headgate.management.rights import manager_of
from headgate.program.http_server import HttpServer
from headgate.program.settings import Address
from tests.console.conftest import ROWS, placed_console
from tests.ledger.builders import record
from tests.management.conftest import Place
from tests.patience import PATIENCE_S
from tests.ports import free_port
from tests.postgres_server import PostgresServer, temporary_folder

SCRIPTS = Path(__file__).parent / "browser"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium: apt-get install chromium, or CHROMIUM="
    ),
    pytest.mark.timeout(1800),  # thousands of rules on each of many pages
]


async def test_every_page_is_without_fault_in_a_real_browser() -> None:
    with temporary_folder() as folder:
        token_file = folder / "token"
        options = ["--demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        options += ["--database-dir", str(folder / "db"), "--records", str(folder / "usage.jsonl")]
        options += ["--api", "127.0.0.1:8482", "--operator-token-file", str(token_file)]
        command = [sys.executable, "-m", "headgate", "up", *options]
        box = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            code = await _checked(await _address(box), token_file)
        finally:
            box.terminate()
            await box.wait()
    assert code == 0


async def _address(box: asyncio.subprocess.Process) -> str:
    assert box.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in box.stdout:
            if found := re.match(rb"Console: (http\S+)/console", line):
                return found[1].decode()
    raise AssertionError("the box ended before it named its console")


async def _checked(url: str, token_file: Path) -> int:
    return await _node("check.mjs", url, str(token_file))


async def _node(script: str, *arguments: str) -> int:
    environment = os.environ | {"CHROMIUM": str(CHROMIUM)}
    shots = os.environ.get("HEADGATE_SHOTS")
    command = ["node", str(SCRIPTS / script), *arguments, *([shots] if shots else [])]
    node = await asyncio.create_subprocess_exec(*command, env=environment)
    return await node.wait()


PEOPLE = {
    "user": ("okta:user", {"acme": Role.USER}),
    "other": ("okta:other", {"acme": Role.USER}),
    "finance": ("okta:finance", {"acme": Role.FINANCE}),
    "admin": ("okta:admin", {"acme": Role.ADMIN}),
    "foreign": ("okta:foreign", {"globex": Role.ADMIN}),
    "operator": ("okta:operator", {"acme": Role.OPERATOR}),
}
HIDDEN = {
    "user": ["of-bob", "of-globex", "zelda9"],
    "other": ["of-bob", "of-globex", "zelda9", "of-user"],
    "finance": ["of-globex", "zelda9"],
    "admin": ["of-globex", "zelda9"],
    "foreign": ["of-bob", "of-user", "refused by", "acme"],
    "operator": [],
}
"""Words that a role must not meet at any address, but as what it has typed itself."""
DECEMBER = record(40, request_id="december", time="2026-12-20T07:00:00Z")


async def test_every_role_sees_and_does_what_is_its_own(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    address = Address("127.0.0.1", free_port())
    console, place = placed_console(postgres, tmp_path, address.url("http"))
    async with console.http:
        server = HttpServer(console.app, address)
        await console.add(*ROWS, DECEMBER)
        keys = {who: await console.issued(user=PEOPLE[who][0]) for who in ("user", "other")}
        await server.start()
        try:
            roles = {who: await _role(place, who) for who in PEOPLE}
            sent = {"roles": roles, "secrets": keys}
            assert await _node("roles.mjs", server.url, json.dumps(sent)) == 0
        finally:
            await server.stop()


async def _role(place: Place, who: str) -> dict[str, object]:
    """The session of a role, the pages that it may open, and those that it may not."""
    user, tenants = PEOPLE[who]
    person = Person(issuer="okta", subject=who, user=user, tenants=tenants, display_name=who)
    manager = manager_of(person)
    plain = [page for page in PAGES if page.method == "GET" and "{" not in page.path]
    return {
        "session": await place.sessions.open(person),
        "open": ["/console" + page.path for page in plain if page.is_open_to(manager)],
        "shut": ["/console" + page.path for page in plain if not page.is_open_to(manager)],
        "hidden": HIDDEN[who],
    }
