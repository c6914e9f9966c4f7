"""envoyproxy/ratelimit with a Redis: the reference of Envoy's rate limit service, in Go."""

from bench.peers.builds import RATELIMIT, go_program
from bench.peers.processes import Place, Stack, free_port
from bench.peers.stacks.two_calls import RULES, two_calls


def ratelimit(place: Place) -> Stack:
    """Two calls for each request."""
    port, services, stores = start_service(place, "ratelimit")
    return two_calls(place, "ratelimit", port, {"services": [services], "stores": [stores]})


def start_service(place: Place, name: str) -> tuple[int, int, int]:
    """Its port, its process and that of its Redis. Raises LeftOut."""
    program = go_program(place.peers, *RATELIMIT)
    rules = place.folder / f"rules-{name}" / "limits" / "config"
    rules.mkdir(parents=True)
    (rules / "bench.yaml").write_text(RULES)
    redis_port, redis_pid = place.redis(name)
    port = free_port()
    env = {
        "USE_STATSD": "false",
        "LOG_LEVEL": "warn",
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"127.0.0.1:{redis_port}",
        "RUNTIME_ROOT": str(rules.parent.parent),
        "RUNTIME_SUBDIRECTORY": "limits",
        "RUNTIME_WATCH_ROOT": "false",
        "GRPC_PORT": str(port),
        "PORT": str(free_port()),
        "DEBUG_PORT": str(free_port()),
        **dict.fromkeys(("HOST", "GRPC_HOST", "DEBUG_HOST"), "127.0.0.1"),
    }
    process = place.start([program], f"service-{name}", env)
    place.wait_for(port, process, f"service-{name}")
    return port, process.pid, redis_pid
