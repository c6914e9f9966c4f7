"""`make soak`: the whole service under a steady load and faults; the exit code says how it went."""

import argparse
import sys

import uvloop

from headgate.core.lean_contract import HookPath
from tests.box import hook_path
from tests.soak.soak import Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second [200]")
    parser.add_argument("--seed", type=int, default=1, help="of requests and faults [1]")
    paths = [path.value for path in HookPath]
    parser.add_argument("--path", choices=paths, default=hook_path().value, help="[%(default)s]")
    options = parser.parse_args()
    path = HookPath(options.path)
    findings = uvloop.run(soak(Plan(options.minutes * 60, options.rate, options.seed, path)))
    return 0 if all(finding.holds for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
