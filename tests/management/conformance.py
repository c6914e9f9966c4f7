"""Schemathesis on the OpenAPI document, over HTTP, on a real PostgreSQL: `make test-api`.

It sends what the document allows and what it forbids, follows links from answers to further
requests, and compares each answer with the document. HEADGATE_API_EXAMPLES bounds the requests.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from headgate.core.clock import SystemClock
from headgate.identity.keys import KeyRequest
from headgate.identity.users import TokensOf
from tests.box import environment
from tests.identity.builders import BY
from tests.management.conftest import API_POLICY, OPERATOR_TOKEN, made
from tests.management.server import served
from tests.postgres_server import PostgresServer

EXAMPLES = os.environ.get("HEADGATE_API_EXAMPLES", "30")
PROGRAM = (Path(sys.executable).with_name("schemathesis"), "--config-file")
SETTINGS = Path(__file__).with_name("schemathesis.toml")


def test_every_answer_is_one_that_the_document_describes(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    address = postgres.address(postgres.clean_database())
    app, desk = made(address, SystemClock(), tmp_path / "operator-token")
    request = KeyRequest(tenant="acme", user="rita")
    issued = asyncio.run(desk.store.issue(request, API_POLICY, BY))
    revoked = asyncio.run(desk.users.revoke(TokensOf(issuer="okta", token_id="t-1"), BY))
    names = {"HEADGATE_TEST_KEY": issued.key.id, "HEADGATE_TEST_REVOCATION": str(revoked.id)}
    with served(app) as url:
        command = [*PROGRAM, SETTINGS, "run", f"{url}/api/v1/openapi.json"]
        command += ["--header", f"Authorization: Bearer {OPERATOR_TOKEN}"]
        command += ["--max-examples", EXAMPLES, "--no-color"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment() | names, capture_output=True, text=True
        )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
