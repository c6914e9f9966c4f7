"""`python -m bench [BENCH...] [--json FILE]`: the benches named, or all of them."""

from bench import (
    affinity,
    cache,
    calls,
    cores,
    counters,
    fairness,
    grpc_server,
    hooks,
    identity,
    keys,
    ledger,
    limits,
    overshoot,
    path,
    placement,
    plan,
    pod_choice,
    policies,
    registry,
    scaling,
    workers,
)
from bench.main import run

run(
    {
        "overshoot": overshoot.measure,
        "counters": counters.measure,
        "limits": limits.measure,
        "policies": policies.measure,
        "keys": keys.measure,
        "ingest": ledger.ingest,
        "search": ledger.find,
        "calls": calls.measure,
        "grpc_server": grpc_server.measure,
        "hooks": hooks.measure,
        "plan": plan.measure,
        "workers": workers.measure,
        "cores": cores.measure,
        "path": path.measure,
        "pod_choice": pod_choice.measure,
        "scaling": scaling.measure,
        "identity": identity.measure,
        "fairness": fairness.measure,
        "affinity": affinity.measure,
        "cache": cache.measure,
        "registry": registry.measure,
        "placement": placement.measure,
    }
)
