"""Messages between the parent and one worker, over a pair of sockets that nobody else has.

A message is its length in 4 bytes and its pickle. Both ends run the same code, and no byte of a
client is ever read from here as a pickle of its own.
"""

import asyncio
import pickle
import socket
from typing import Any

_LENGTH_BYTES = 4
_LARGE_BYTES = 64 * 1024
"""A larger message is a policy. A thread reads it, so that calls get their turns meanwhile."""


def _read(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301 - from our own process, see above


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """Takes over this end of a connected pair of stream sockets."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: object) -> None:
        """Sends it soon. A message to an end that is gone is lost."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
        self._writer.write(data)

    async def receive(self) -> Any:
        """The next message; None once the other end is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        if length > _LARGE_BYTES:
            return await asyncio.to_thread(_read, data)
        return _read(data)

    def close(self) -> None:
        """The other end sees that this one is gone."""
        self._writer.close()
