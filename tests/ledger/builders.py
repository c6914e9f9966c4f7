"""Records and their lines for the tests of the ledger, and what the ledger made of them."""

import json
from pathlib import Path
from typing import Any

from headgate.database.connection import connected
from tests.postgres_server import PostgresServer

_UNKNOWN = (
    "trace_id reservation version adapter limit max_tokens reasoning_tokens audio_seconds"
    " to_upstream_s upstream_first_byte_s ttft_s token_interval_s"
)


def record(number: int, **fields: Any) -> dict[str, Any]:
    """The record of a request; each number is another request."""
    return {
        "schema": 2,
        "time": f"2026-10-{1 + number % 28:02}T10:{number // 60 % 60:02}:{number % 60:02}.000001Z",
        "request_id": f"request-{number}",
        **dict.fromkeys(_UNKNOWN.split()),
        "tenant": "acme",
        "user": f"user-{number % 3}",
        "key": "laptop",
        "ip": "10.0.0.7",
        "user_agent": "test",
        "method": "POST",
        "path": "/v1/chat/completions",
        "api": "chat",
        "requested_model": "tiny",
        "model": "tiny",
        "base": "tiny",
        "stream": False,
        "choices": 1,
        "status": 200,
        "upstream_status": 200,
        "ended": "complete",
        "pod": "10.1.0.1:8000",
        "attempts": 1,
        "replica": "one",
        "flags": [],
        "details": "via_upstream",
        "request_header_bytes": 1,
        "request_bytes": 2,
        "response_header_bytes": 3,
        "response_bytes": 4,
        "prompt_tokens": 10 + number,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "estimated_tokens": 30,
        "estimated_prompt_tokens": 12,
        "cost": 0.000012345,
        "source": "usage",
        "duration_s": 1.25,
        **fields,
    }


def line(number: int, **fields: Any) -> bytes:
    """The same as a line of JSON."""
    return json.dumps(record(number, **fields)).encode() + b"\n"


def written(path: Path, *lines: bytes) -> Path:
    """A file of lines."""
    path.write_bytes(b"".join(lines))
    return path


async def rows(server: PostgresServer, query: str, database: str = "clean") -> list[Any]:
    """The rows of a query."""
    async with connected(server.address(database)) as connection:
        return await (await connection.execute(query)).fetchall()


async def ledger(server: PostgresServer) -> list[Any]:
    """The ledger, without what tells by which way a record came."""
    return await rows(
        server,
        'select request_id, ended_at, tenant, "user", prompt_tokens, cost_nanos, replica'
        " from headgate.usage_line order by ended_at, request_id",
    )
