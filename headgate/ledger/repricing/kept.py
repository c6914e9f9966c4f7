"""Repricings in the database: documents that never change, each with its checksum."""

from hashlib import sha256

import msgspec

from headgate.database.connection import Connection
from headgate.ledger.repricing.values import Repricing, RepricingError

_PUT = """
insert into headgate.repricing (name, checksum, document) values (%s, %s, %s)
on conflict do nothing returning name
"""
_READ = "select checksum, document from headgate.repricing where name = %s"
_NAMES = "select name from headgate.repricing order by 1"
_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Repricing)


def document_of(repricing: Repricing) -> bytes:
    """The document of a repricing: the same one has the same bytes."""
    return msgspec.json.format(_encoder.encode(repricing), indent=1) + b"\n"


async def refuse_taken(connection: Connection, name: str) -> None:
    """Raises RepricingError for a name that a repricing has."""
    if name in await repricing_names(connection):
        raise _taken(name)


async def put_repricing(connection: Connection, repricing: Repricing) -> str:
    """Keeps a repricing for good, and returns its checksum as hex digits.

    Raises RepricingError if its name is taken.
    """
    document = document_of(repricing)
    checksum = sha256(document)
    values = repricing.name, checksum.digest(), document
    if await (await connection.execute(_PUT, values)).fetchone() is None:
        raise _taken(repricing.name)
    return checksum.hexdigest()


async def read_repricing(connection: Connection, name: str) -> tuple[Repricing, str]:
    """A repricing and its checksum. Raises RepricingError if there is none, or it was changed."""
    row = await (await connection.execute(_READ, (name,))).fetchone()
    if row is None:
        known = ", ".join(await repricing_names(connection)) or "none yet"
        raise RepricingError(f"there is no repricing {name}; those that are kept: {known}")
    checksum, document = row
    if sha256(document).digest() != checksum:
        raise RepricingError(
            f"the repricing {name} does not have its checksum: somebody changed it"
        )
    return _decoder.decode(document), checksum.hex()


async def repricing_names(connection: Connection) -> list[str]:
    """The names of all repricings, sorted."""
    return [name for (name,) in await (await connection.execute(_NAMES)).fetchall()]


def _taken(name: str) -> RepricingError:
    return RepricingError(
        f"the repricing {name} is kept already and never changes: choose another name"
    )
