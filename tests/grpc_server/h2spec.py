"""Runs h2spec against our gRPC server: `python -m tests.grpc_server.h2spec PATH_OF_H2SPEC`.

The exit code is that of h2spec. Its rules for clients are held without Go by `test_faults.py` and
`test_connection.py`; this is the independent judge.
"""

import asyncio
import sys

from headgate.grpc_server.server import Server
from tests.grpc_server.servers import Methods

_TIMEOUT_S = "3"


async def judge(h2spec: str) -> int:
    """Serves methods on a free port for as long as h2spec runs."""
    server = Server(Methods().all())
    port = await server.start("127.0.0.1:0")
    options = ("--host", "127.0.0.1", "--port", str(port), "--timeout", _TIMEOUT_S)
    process = await asyncio.create_subprocess_exec(h2spec, *options)
    code = await process.wait()
    await server.drain(0)
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(judge(sys.argv[1])))
