"""Kuadrant's limitador: a rate limit service in Rust.

It is on no package index, so its program `limitador-server` must be on the PATH, or in `bin` of the
peers' folder.
"""

import shutil

from bench.peers.processes import LeftOut, Place, Stack, free_port
from bench.peers.stacks.two_calls import two_calls

_LIMITS = """
- namespace: bench
  max_value: 1000000000000
  seconds: 86400
  conditions: []
  variables: ["descriptors[0].user"]
"""


def limitador(place: Place, name: str, store: str) -> Stack:
    """Two calls for each request, with a store (memory or redis)."""
    built = place.peers / "bin" / "limitador-server"
    program = built if built.exists() else shutil.which("limitador-server")
    if program is None:
        raise LeftOut("there is no limitador-server here, and no package index has its source")
    file = place.folder / f"{name}.yaml"
    file.write_text(_LIMITS)
    stores, where = [], ["memory"]
    if store == "redis":
        redis_port, redis_pid = place.redis(name)
        stores, where = [redis_pid], ["redis", f"redis://127.0.0.1:{redis_port}"]
    port = free_port()
    hosts = ("--rls-ip", "127.0.0.1", "--http-ip", "127.0.0.1")
    ports = ("--rls-port", port, "--http-port", free_port())
    process = place.start([program, *hosts, *ports, file, *where], f"service-{name}")
    place.wait_for(port, process, f"service-{name}")
    return two_calls(place, name, port, {"services": [process.pid], "stores": stores})
