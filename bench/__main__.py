"""`python -m bench [BENCH...] [--json FILE]`: the benches named, or all of them."""

from bench import calls, counters, grpc_server, identity, keys, limits, overshoot, policies
from bench.main import run

run(
    {
        "overshoot": overshoot.measure,
        "counters": counters.measure,
        "limits": limits.measure,
        "policies": policies.measure,
        "keys": keys.measure,
        "calls": calls.measure,
        "grpc_server": grpc_server.measure,
        "identity": identity.measure,
    }
)
