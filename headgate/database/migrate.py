"""Brings the schema to the newest version: plain SQL files, in order, forward only.

A change of the schema first expands it, and a later release contracts it. The programs of the
release before therefore work on the expanded schema. Each file begins with `-- oldest-program: N`:
programs that know fewer than N migrations no longer work after it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from headgate.core.errors import OperatorError
from headgate.database.address import DatabaseAddress
from headgate.database.connection import Connection, first_line

MIGRATIONS = Path(__file__).with_name("migrations")
APPLICATION_ROLE = "headgate_application"
_LOCK = 0x6865616467617465  # "headgate": no other program takes this lock
_LOCK_TIMEOUT = "30s"
_HEADER = re.compile(r"-- oldest-program: ([0-9]+)\n")
_TABLE = """
create schema if not exists headgate;
create table if not exists headgate.migration (
  number integer primary key,
  name text not null,
  sha256 text not null,
  oldest_program integer not null,
  applied_at timestamptz not null default now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def oldest_program(self) -> int:
        """How many migrations a program must know to work after this one."""
        found = _HEADER.match(self.sql)
        if found is None:
            raise ValueError(f"{self.name} does not begin with `-- oldest-program: N`")
        return int(found[1])


def read_migrations(folder: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """The files of a folder, in their order. Raises ValueError for a gap in their numbers."""
    files = sorted(folder.glob("*.sql"))
    found = tuple(
        Migration(int(file.name.partition("_")[0]), file.name, file.read_text(encoding="utf-8"))
        for file in files
    )
    if [one.number for one in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the numbers of the files in {folder} are not 1, 2, 3, ...")
    return found


def migrate(address: DatabaseAddress, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Applies the files that are missing, each in a transaction; returns their names.

    One program migrates at a time; others wait for it. Raises OperatorError if the database cannot
    be reached, is newer than this program, or was migrated by another text of a file.
    """
    known = read_migrations() if migrations is None else migrations
    options: dict[str, Any] = dict(address.connection_options())
    try:
        with psycopg.connect(**options, autocommit=True) as connection:
            connection.execute(f"set lock_timeout = '{_LOCK_TIMEOUT}'")
            connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
            _require_role(connection)
            connection.execute(_TABLE)
            return [_apply(connection, one) for one in _missing(connection, known)]
    except psycopg.Error as error:
        raise OperatorError(f"cannot migrate the database: {first_line(error)}") from None


def _require_role(connection: psycopg.Connection[Any]) -> None:
    found = connection.execute("select 1 from pg_roles where rolname = %s", (APPLICATION_ROLE,))
    if found.fetchone() is None:
        raise OperatorError(
            f"the database has no role {APPLICATION_ROLE}: let an administrator run `create role"
            f" {APPLICATION_ROLE} nologin` and grant it to the role of `headgate serve`"
        )


def _missing(
    connection: psycopg.Connection[Any], known: Sequence[Migration]
) -> Sequence[Migration]:
    rows = connection.execute("select number, sha256 from headgate.migration").fetchall()
    applied: Mapping[int, str] = dict(rows)
    if len(applied) > len(known):
        raise OperatorError(
            f"the database has {len(applied)} migrations and this program knows {len(known)}:"
            " use the newer Headgate"
        )
    for one in known:
        if applied.get(one.number, one.sha256) != one.sha256:
            raise OperatorError(
                f"the database was migrated by another text of {one.name}: this program was"
                " changed after it, or the other one was no release"
            )
    return [one for one in known if one.number not in applied]


def _apply(connection: psycopg.Connection[Any], migration: Migration) -> str:
    with connection.transaction():
        connection.execute(migration.sql.encode())
        connection.execute(
            "insert into headgate.migration (number, name, sha256, oldest_program)"
            " values (%s, %s, %s, %s)",
            (migration.number, migration.name, migration.sha256, migration.oldest_program),
        )
    return migration.name


async def check_schema(connection: Connection, known: int | None = None) -> None:
    """Raises OperatorError unless this program, with its `known` migrations, works on the schema.

    A schema may be newer than the program while a release is rolled out.
    """
    needed = len(read_migrations()) if known is None else known
    try:
        cursor = await connection.execute(
            "select count(*), coalesce(max(oldest_program), 0) from headgate.migration"
        )
        row = await cursor.fetchone()
    except psycopg.errors.Error as error:
        if not isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
            raise
        row = None
    applied, oldest = row or (0, 0)
    if applied < needed:
        raise OperatorError(
            f"the database has {applied} of {needed} migrations: run `headgate database migrate`"
            " as the owner of its schema"
        )
    if oldest > needed:
        raise OperatorError(
            f"the database needs a program with {oldest} migrations, and this one has {needed}:"
            " use the newer Headgate"
        )
