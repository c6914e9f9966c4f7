"""`python -m bench.peers [STACK...]`: builds, starts and measures stacks side by side."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.peers.measures import able, in_turns
from bench.peers.processes import LeftOut, Place, Stack, free_port
from bench.peers.report import report, write
from bench.peers.stacks.ai_gateway import ai_gateway
from bench.peers.stacks.headgate import box, drop_in
from bench.peers.stacks.limitador import limitador
from bench.peers.stacks.litellm import litellm
from bench.peers.stacks.plain import plain
from bench.peers.stacks.ratelimit import ratelimit

Start = Callable[[Place], Stack]


def _box(name: str, path: str, store: str) -> Start:
    return partial(box, name=name, path=path, store=store)


STACKS: Mapping[str, Start] = {
    "plain": plain,
    "standard": _box("standard", "standard", "memory"),
    "standard-redis": _box("standard-redis", "standard", "redis"),
    "standard-slices": _box("standard-slices", "standard", "slices"),
    "lean": _box("lean", "lean", "memory"),
    "lean-redis": _box("lean-redis", "lean", "redis"),
    "lean-slices": _box("lean-slices", "lean", "slices"),
    "drop-in": partial(drop_in, name="drop-in", store="memory"),
    "drop-in-redis": partial(drop_in, name="drop-in-redis", store="redis"),
    "ratelimit": ratelimit,
    "limitador": partial(limitador, name="limitador", store="memory"),
    "limitador-redis": partial(limitador, name="limitador-redis", store="redis"),
    "ai-gateway": ai_gateway,
    "litellm": litellm,
}


def run(arguments: Sequence[str] | None = None) -> None:
    """The command line. Plain Envoy always takes part, because all others are compared with it."""
    parser = argparse.ArgumentParser(description="Measures Headgate beside its peers.")
    parser.add_argument("stacks", nargs="*", metavar="STACK", help=", ".join(STACKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="what was built")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there too")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.stacks if name not in STACKS]:
        parser.error(f"no stack is called {unknown[0]}; there are {', '.join(STACKS)}")
    names = [name for name in STACKS if name in {"plain", *(options.stacks or STACKS)}]
    text = _measured(names, options.rounds, options.peers.absolute())
    print(text)
    if options.write is not None:
        write(options.write, text)


def _measured(names: Sequence[str], rounds: int, peers: Path) -> str:
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="peers-") as folder, ExitStack() as ending:
        place = Place(ending, Path(folder), peers, free_port())
        command = [sys.executable, "-m", "bench.peers.upstream", place.upstream_port]
        place.wait_for(place.upstream_port, place.start(command, "upstream"), "upstream")
        stacks = []
        for name in names:
            try:
                stacks.append(STACKS[name](place))
            except (LeftOut, subprocess.SubprocessError) as reason:
                left_out[name] = str(reason)
                print(f"{name} is left out: {reason}", file=sys.stderr, flush=True)
        results = in_turns(able(stacks, left_out), rounds, left_out)
    return report(results, left_out, rounds)


if __name__ == "__main__":
    run()
