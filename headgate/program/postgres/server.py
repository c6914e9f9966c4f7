"""Runs PostgreSQL as a child process: the first start, readiness, death, stop."""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from headgate.core.errors import OperatorError
from headgate.database.address import database_address
from headgate.database.migrate import APPLICATION_ROLE, migrate
from headgate.dataplane.child import last_lines, spawn
from headgate.program.postgres.binaries import find_binaries, usable_by, version_of
from headgate.program.postgres.folder import (
    ADMIN,
    APPLICATION,
    DATABASE,
    OWNER,
    DatabaseFolder,
    database_folder,
    write_passwords,
)

READY_TIMEOUT_S = 60.0
"""After a crash the server first repeats its log of writes."""
STOP_GRACE_S = 10.0
_PAUSE_S = 0.02
OPTIONS = ("listen_addresses=", "shared_buffers=32MB", "max_connections=40")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server. `url` is the address for the application's role."""

    folder: DatabaseFolder
    process: Process

    @property
    def url(self) -> str:
        return self.folder.url(APPLICATION)

    async def died(self) -> None:
        """Waits for the server's end and raises OperatorError: nothing else ends it."""
        code = await self.process.wait()
        raise OperatorError(f"PostgreSQL ended with exit code {code}{_why(self.folder.log)}")


@asynccontextmanager
async def running_postgres(path: Path) -> AsyncIterator[Postgres]:
    """Starts the server of a folder, makes its database on the first start, and migrates it.

    Raises OperatorError when it cannot, or when the data are of another major version.
    """
    with database_folder(path) as folder:
        binaries = usable_by(folder.user, find_binaries(), folder.path / "server")
        if not folder.data.exists():
            await _create(folder, binaries)
        _check_version(folder, version_of(binaries))
        _forget_foreign_process(folder.data / "postmaster.pid")
        process = await _start(folder, binaries)
        try:
            await asyncio.to_thread(_provide, folder)
            yield Postgres(folder, process)
        finally:
            await stop(process)


async def stop(process: Process) -> None:
    """Ends the server by SIGINT, its fast shutdown: SIGTERM would wait for its clients."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _create(folder: DatabaseFolder, binaries: Path) -> None:
    """Makes the data in a folder of another name: one that was left half-made is made again."""
    write_passwords(folder)
    new = folder.path / "new"
    password = folder.path / "password"
    password.touch(mode=0o600)
    folder.own(password, 0o600)
    password.write_text(folder.password_of(ADMIN), encoding="utf-8")
    command = [str(binaries / "initdb"), "-D", str(new), "-U", ADMIN, "--pwfile", str(password)]
    command += ["--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"]
    try:
        shutil.rmtree(new, ignore_errors=True)
        process = await spawn(command, folder.log, user=folder.user)
        if await process.wait():
            raise OperatorError(f"initdb could not make the database{_why(folder.log)}")
    finally:
        password.unlink()
    new.rename(folder.data)


def _check_version(folder: DatabaseFolder, version: str) -> None:
    ours, theirs = version.partition(".")[0], (folder.data / "PG_VERSION").read_text().strip()
    if ours != theirs:
        raise OperatorError(
            f"the database in {folder.path} is of PostgreSQL {theirs}, and this Headgate brings"
            f" {ours}: dump it with the Headgate that made it, and restore the dump into a new"
            " folder (docs/database.md, Another major version)"
        )


def _forget_foreign_process(pid_file: Path) -> None:
    """Removes the file of a server that is gone, if its number now belongs to another program.

    PostgreSQL would take that program for itself; it happens when a container starts again. This
    process holds the folder, so no other server runs in it.
    """
    with suppress(FileNotFoundError, ValueError):
        pid = int(pid_file.read_text().partition("\n")[0])
        name = Path("/proc", str(pid), "comm")
        if Path("/proc/self").exists() and name.exists() and name.read_text() != "postgres\n":
            pid_file.unlink()


async def _start(folder: DatabaseFolder, binaries: Path) -> Process:
    """Starts the server and waits until it takes connections.

    The processes of one that was killed may still end: then it is started again.
    """
    command = [str(binaries / "postgres"), "-D", str(folder.data), "-k", str(folder.socket)]
    command += ["-c", "unix_socket_permissions=0700"]
    command += [part for option in OPTIONS for part in ("-c", option)]
    process = await spawn(command, folder.log, user=folder.user)
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not await asyncio.to_thread(_answers, folder):
                if process.returncode is not None:
                    if "shared memory" not in "".join(last_lines(folder.log, 2)):
                        raise OperatorError(f"PostgreSQL did not start{_why(folder.log)}")
                    process = await spawn(command, folder.log, user=folder.user)
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        await stop(process)
        raise OperatorError(f"PostgreSQL did not start in time{_why(folder.log)}") from None
    except BaseException:
        await stop(process)
        raise
    return process


def _answers(folder: DatabaseFolder) -> bool:
    try:
        psycopg.connect(folder.url(ADMIN, "postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _provide(folder: DatabaseFolder) -> None:
    """Makes the roles and the database where they are missing, and the newest schema."""
    with psycopg.connect(folder.url(ADMIN, "postgres"), autocommit=True) as connection:
        for role in (OWNER, APPLICATION):
            if not _exists(connection, "pg_roles where rolname", role):
                _create_role(connection, role, folder.password_of(role))
        if not _exists(connection, "pg_roles where rolname", APPLICATION_ROLE):
            group, member = sql.Identifier(APPLICATION_ROLE), sql.Identifier(APPLICATION)
            connection.execute(sql.SQL("create role {} nologin").format(group))
            connection.execute(sql.SQL("grant {} to {}").format(group, member))
        if not _exists(connection, "pg_database where datname", DATABASE):
            names = sql.Identifier(DATABASE), sql.Identifier(OWNER)
            connection.execute(sql.SQL("create database {} owner {}").format(*names))
    migrate(database_address(folder.url(OWNER)))


def _exists(connection: "psycopg.Connection[tuple[object, ...]]", place: str, name: str) -> bool:
    query = sql.SQL(f"select 1 from {place} = %s")  # noqa: S608 - `place` is one of ours
    return connection.execute(query, (name,)).fetchone() is not None


def _create_role(
    connection: "psycopg.Connection[tuple[object, ...]]", role: str, password: str
) -> None:
    """The server sees the password only as its scram verifier, in its log too."""
    verifier = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    )
    statement = sql.SQL("create role {} login password {}")
    connection.execute(statement.format(sql.Identifier(role), sql.Literal(verifier.decode())))


def _why(log_file: Path) -> str:
    lines = [line for line in last_lines(log_file, 5) if line.strip()]
    return f" ({os.fspath(log_file)}: {lines[-1]})" if lines else ""
