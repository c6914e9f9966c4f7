"""Blocked users, and users who make their own keys, through a real Envoy on both paths."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.clock import SystemClock
from headgate.identity.users import UserStore
from tests.box import policy, running_box, small_chat
from tests.envoy.conftest import Upstream
from tests.envoy.test_keys import BY, Desk
from tests.identity.builders import connect_to
from tests.identity.issuer import TestIssuer
from tests.patience import wait_until
from tests.postgres_server import temporary_folder

KEYS = "/v1/headgate/keys"
LIMITS = """
      - {count: requests, limit: 50, per: year, each: user}
      - {count: tokens, limit: 1000000, per: day}
      - {count: concurrent, limit: 10}
"""
ISSUERS = """\
issuers:
  corp: {{issuer: "{url}", audience: [headgate], tenants: [{{tenant: acme, groups: [ml]}},
    {{tenant: globex, groups: [globex]}}]}}
"""


class Site(Desk):
    """A box with a database and an issuer."""

    issuer: TestIssuer

    def call(self, method: str, path: str, who: str = "alice", **claims: Any) -> httpx.Response:
        now_s = int(time.time())
        claims = {"iat": now_s, "exp": now_s + 300, "sub": who, "jti": who, **claims}
        headers = {"authorization": f"Bearer {self.issuer.token(**claims).decode()}"}
        body = small_chat() if path.endswith("completions") else None
        return httpx.request(method, f"{self.box.url}{path}", json=body, headers=headers)

    def chat(self, secret: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"}
        url = f"{self.box.url}/v1/chat/completions"
        return httpx.post(url, json=small_chat(), headers=headers)


@pytest.fixture(scope="module", params=["standard", "lean"])
def site(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    home: Path = tmp_path_factory.mktemp("users")
    issuer = TestIssuer()
    with issuer.serve() as url, temporary_folder() as folder:
        options = ("--database-dir", str(folder / "db"), "--path", request.param)
        text = policy(upstream.url, limits=LIMITS)
        text = text.replace("  globex:\n", f"{OWN_KEYS}  globex:\n") + ISSUERS.format(url=url)
        with running_box(home, text, *options) as box:
            site = Site(box, folder / "db")
            site.issuer = issuer
            yield site


OWN_KEYS = "    own_keys: {most: 2, hours: 24}\n"


def test_a_blocked_user_is_refused_by_both_of_their_keys_and_others_are_not(site: Site) -> None:
    users = UserStore(connect_to(site.address), SystemClock())
    issued = site.issue()
    site.wait(issued, 200)

    for user in ("rita", "alice", "corp:mallory"):
        asyncio.run(users.block("acme", user, BY))

    site.wait(issued, 403)
    wait_until(lambda: site.box.chat().status_code == 403, "the block")
    assert site.box.chat().json()["error"]["code"] == "user_blocked"
    wait_until(
        lambda: site.call("GET", "/v1/headgate/limits", "mallory").status_code == 403, "the block"
    )
    assert site.box.chat(user="bob").status_code == 200
    asyncio.run(users.unblock("acme", "alice", BY))
    wait_until(lambda: site.box.chat().status_code == 200, "the end of the block")


def test_a_person_makes_a_key_uses_it_and_ends_it(site: Site) -> None:
    made = site.call("POST", f"{KEYS}?name=laptop&hours=2&model=tiny").json()
    wait_until(lambda: site.chat(made["secret"]).status_code == 200, "the new key")
    listed = site.call("GET", KEYS).json()["data"]
    as_key = httpx.post(
        f"{site.box.url}{KEYS}", headers={"authorization": f"Bearer {made['secret']}"}
    )
    foreign = site.call("DELETE", f"{KEYS}/{made['id']}", "eve")
    ended = site.call("DELETE", f"{KEYS}/{made['id']}")

    assert [(key["id"], key["name"], key["models"]) for key in listed] == [
        (made["id"], "laptop", ["tiny"])
    ]
    assert (as_key.status_code, as_key.json()["error"]["code"]) == (403, "own_keys_refused")
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "key_not_found")
    assert ended.json()["deleted"]
    wait_until(lambda: site.chat(made["secret"]).status_code == 401, "the end of the key")
    record = site.box.record_of(ended.headers["x-request-id"])
    assert (record["api"], record["user"], record["method"]) == (
        "own_keys",
        "corp:alice",
        "DELETE",
    )


def test_no_more_keys_than_the_tenant_allows_and_none_where_it_allows_none(site: Site) -> None:
    made = [site.call("POST", KEYS, "carl") for _ in range(3)]
    elsewhere = site.call("POST", KEYS, "gina", groups=["globex"])

    assert [answer.status_code for answer in made] == [200, 200, 400]
    assert "2 live keys already, of 2" in made[2].json()["error"]["message"]
    assert elsewhere.json()["error"]["code"] == "own_keys_refused"


def test_usage_tells_the_users_own_part_and_that_of_the_tenant(site: Site) -> None:
    for _ in range(2):
        assert site.call("POST", "/v1/chat/completions", "uma").status_code == 200

    own, whole = site.call("GET", "/v1/headgate/usage", "uma").json()["data"]

    assert (own["of"], own["count"], own["used"]) == ("user", "requests", 2)
    assert (whole["of"], whole["count"]) == ("tenant", "tokens")
    assert own["begins_at"].endswith("-01-01T00:00:00+01:00")
    assert own["begins_at"] < own["ends_at"]


@pytest.mark.parametrize("path", ["/api/v1/tenants", "/api/v1/openapi.json", "/login", "/console/"])
def test_the_data_port_serves_nothing_of_the_management_api(site: Site, path: str) -> None:
    assert site.call("GET", path).json()["error"]["code"] == "unknown_path"
