"""Compiles the wire subset: `python -m protos.generate` writes it, `--check` compares it.

The sources in protos/ are mapped to the virtual folder headgate/_gen, so that the generated
modules import each other as `headgate._gen.x_pb2`.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "headgate/_gen"


def generate(out: Path) -> None:
    """Writes `headgate/_gen/*_pb2.py` and their `.pyi` below the folder `out`.

    Raises RuntimeError when protoc refuses a source.
    """
    sources = sorted(path.name for path in (ROOT / "protos").glob("*.proto"))
    code = protoc.main(
        [
            "protoc",
            f"-I{GENERATED}={ROOT / 'protos'}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            *(f"{GENERATED}/{name}" for name in sources),
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc failed with exit code {code}; see its message above")


def stale() -> list[str]:
    """The names of generated files that differ from the result of the sources."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in Path(folder, GENERATED).iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / GENERATED).glob("*_pb2.py*")}
    names = sorted(fresh.keys() | committed.keys())
    return [name for name in names if fresh.get(name) != committed.get(name)]


def main(arguments: list[str]) -> int:
    """Generates, or with `--check` lists stale files; returns the exit code."""
    if arguments != ["--check"]:
        generate(ROOT)
        return 0
    for name in stale():
        print(f"{GENERATED}/{name} differs from its source: run `make generate`", file=sys.stderr)
    return 1 if stale() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
