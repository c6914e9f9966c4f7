"""`headgate serve` and `headgate database` with a PostgreSQL of the operator's own."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from headgate.cli import cli
from headgate.core.errors import OperatorError
from headgate.database.address import database_address
from headgate.program.postgres.folder import APPLICATION, OWNER
from tests.box import environment, metric, policy
from tests.fakes import FakeClock
from tests.identity.builders import ALICE, BY, POLICY, store_of
from tests.patience import PATIENCE_S, wait_until
from tests.postgres_server import PostgresServer, running_server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


def options(postgres: PostgresServer, folder: Path, role: str, database: str) -> list[str]:
    """The options of the command line, with the password in a file."""
    password = folder / f"{role}.password"
    password.write_text(postgres.server.folder.password_of(role) + "\n")
    url = f"postgresql://{role}@/{database}?host={postgres.server.folder.socket}"
    return ["--database", url, "--database-password-file", str(password)]


def test_migrate_says_what_it_did_and_a_second_run_does_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    words = options(postgres, tmp_path, OWNER, postgres.empty_database())

    first = CliRunner().invoke(cli, ["database", "migrate", *words])
    second = CliRunner().invoke(cli, ["database", "migrate", *words])

    assert first.output.splitlines()[0] == "applied 001_keys.sql"
    assert second.output == "the schema is the newest already\n"


def test_the_application_cannot_migrate(postgres: PostgresServer, tmp_path: Path) -> None:
    words = options(postgres, tmp_path, APPLICATION, postgres.empty_database())

    done = CliRunner().invoke(cli, ["database", "migrate", *words])

    assert isinstance(done.exception, OperatorError)
    assert "permission denied" in str(done.exception)


def test_serve_follows_the_keys_and_shows_no_password(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = postgres.clean_database()
    store = store_of(postgres.address(database), FakeClock())
    asyncio.run(store.issue(ALICE, POLICY, BY))
    words = options(postgres, tmp_path, APPLICATION, database)
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    command = [sys.executable, "-m", "headgate", "serve", "--admin", "127.0.0.1:0", *words]
    command += ["--hooks", f"unix:{tmp_path / 'h'}", "--keys-snapshot", str(tmp_path / "keys")]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stderr is not None
        admin_url = process.stderr.readline().split()[-1]
        metrics = httpx.get(f"{admin_url}/metrics").text
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        wait_until((tmp_path / "keys").exists, "the snapshot")
    finally:
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_S)
    assert metric(metrics, "headgate_keys") == 1
    assert metric(metrics, "headgate_keys_polled_timestamp_seconds") > 1
    assert postgres.server.folder.password_of(APPLICATION) not in shown + log


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_password_file_without_a_database_is_a_usage_error(command: str) -> None:
    done = CliRunner().invoke(cli, [command, "--database-password-file", "p"])

    assert done.exit_code == 2
    assert re.search("go with a --database", done.output)


def test_up_takes_one_database_and_not_two() -> None:
    words = ["--demo", "--database", "postgresql://u@h/d", "--database-dir", "db"]

    done = CliRunner().invoke(cli, ["up", *words])

    assert isinstance(done.exception, OperatorError)
    assert "take one" in str(done.exception)


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = options(postgres, tmp_path, APPLICATION, "headgate")
    Path(words[3]).write_text("wr0ng-s3cret\n")
    address = database_address(words[1], Path(words[3]))

    with pytest.raises(Exception, match="password authentication failed") as caught:
        asyncio.run(store_of(address, FakeClock()).get("~1"))

    assert "wr0ng" not in str(caught.value) + caplog.text
