"""A real PostgreSQL for tests: that of one box, with an empty and a clean database."""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psycopg
from psycopg import sql

from headgate.database.address import DatabaseAddress, database_address
from headgate.program.postgres.folder import ADMIN, APPLICATION, DATABASE, OWNER
from headgate.program.postgres.server import OPTIONS, Postgres, running_postgres
from tests.patience import PATIENCE_S


@dataclass
class PostgresServer:
    """One running server. Its database `headgate` stays as it was made, as a template."""

    server: Postgres

    def empty_database(self) -> str:
        """The name of a database without our schema. The one before it is no more."""
        self._create("empty", "template1")
        self.run_as(OWNER, "empty", "drop schema if exists headgate cascade")
        return "empty"

    def clean_database(self) -> str:
        """The name of a database with the newest schema and no rows. The one before is no more."""
        self._create("clean", DATABASE)
        tables = "headgate.change, headgate.key_secret, headgate.api_key, headgate.blocked_user"
        tables += ", headgate.revocation, headgate.browser_session, headgate.closed_month"
        tables += ", headgate.person, headgate.adapter, headgate.adapter_version"
        tables += ", headgate.adapter_place, headgate.adapter_use"
        self.run_as(OWNER, "clean", f"truncate {tables}")
        ledger = "headgate.usage_record, headgate.ingest, headgate.label_set, headgate.price"
        ledger += ", headgate.notice, headgate.notice_delivery"
        ledger += ", headgate.reconciliation, headgate.reconciled_pod"
        ledger += ", headgate.notified_tenant, headgate.met_subject"
        ledger += ", headgate.repricing, headgate.repricing_correction, headgate.dropped_month"
        self.run_as(OWNER, "clean", f"truncate {ledger}")
        self.run_as(OWNER, "clean", "update headgate.generation set value = 0")
        self.run_as(OWNER, "clean", "update headgate.adapter_place_round set value = 0")
        return "clean"

    def _create(self, name: str, template: str) -> None:
        query = sql.SQL("create database {} template {} owner {}")
        names = sql.Identifier(name), sql.Identifier(template), sql.Identifier(OWNER)
        with suppress(psycopg.errors.DuplicateDatabase):
            self.run_as(ADMIN, "postgres", query.format(*names))

    def address(self, database: str, role: str = APPLICATION) -> DatabaseAddress:
        return database_address(self.server.folder.url(role, database))

    def run_as(self, role: str, database: str, query: "sql.Composable | str") -> list[tuple]:
        """Runs one statement and returns its rows."""
        url = self.server.folder.url(role, database)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def freeze(self, backend: int) -> None:
        """Lets one backend hang: its connection stays open and nothing answers."""
        os.kill(backend, signal.SIGSTOP)

    def thaw(self, backend: int) -> None:
        os.kill(backend, signal.SIGCONT)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a short path that another user may enter by name, as the server's may be."""
    path = Path(tempfile.mkdtemp(prefix="hg-pg-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server of its own, kept by a thread: a child ends with the thread that started it."""
    ready, end = threading.Event(), asyncio.Event()
    started: list[tuple[asyncio.AbstractEventLoop, Postgres]] = []

    async def keep(path: Path) -> None:
        try:
            async with running_postgres(path) as server:
                started.append((asyncio.get_running_loop(), server))
                ready.set()
                await end.wait()
        finally:
            ready.set()

    without_sync = patch("headgate.program.postgres.server.OPTIONS", (*OPTIONS, "fsync=off"))
    with without_sync, temporary_folder() as folder:
        thread = threading.Thread(target=lambda: asyncio.run(keep(folder / "db")))
        thread.start()
        assert ready.wait(PATIENCE_S)
        [(loop, server)] = started
        try:
            yield PostgresServer(server)
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join(PATIENCE_S)
