"""Builds peers from their public modules into a folder that git ignores."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.peers.processes import LeftOut

_BUILD_S = 1800
RATELIMIT = (
    "github.com/envoyproxy/ratelimit@v1.4.1-0.20260122083618-3fb702589d36",
    "./src/service_cmd",
)
AI_GATEWAY = ("github.com/envoyproxy/ai-gateway@v1.0.0", "./cmd/extproc")
LITELLM = "litellm[proxy]==1.108.7"


def go_program(folder: Path, module: str, package: str) -> Path:
    """The program of a package (a folder) of a Go module at a version. Raises LeftOut.

    It is built in a copy of the module, so that the module's own replacements hold.
    """
    name = module.rpartition("/")[2].replace("@", "-")
    program = folder / "bin" / name
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise LeftOut("Go is not installed")
        with tempfile.TemporaryDirectory() as elsewhere:
            download = [go, "mod", "download", "-json", module]
            found = json.loads(_run(download, Path(elsewhere), f"no {module} can be fetched here"))
            source = Path(elsewhere) / "source"
            shutil.copytree(found["Dir"], source, copy_function=shutil.copyfile)
            _run(
                [go, "build", "-trimpath", "-o", str(program), package], source, "its build failed"
            )
    return program


def python_program(folder: Path, requirement: str, program: str) -> Path:
    """The program of a Python package, in an environment of its own. Raises LeftOut."""
    venv = folder / program
    if not (venv / "bin" / program).exists():
        folder.mkdir(exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], folder, "it needs a venv")
        install = [str(venv / "bin" / "pip"), "install", "--quiet", requirement]
        _run(install, folder, f"no {requirement} can be fetched here")
    return venv / "bin" / program


def _run(command: list[str], folder: Path, otherwise: str) -> str:
    """Runs the command in a folder and returns its output. Raises LeftOut with `otherwise`.

    The details are for the terminal only: they may name hosts of this network.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=_BUILD_S, check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        print(f"{error.stdout}{error.stderr}", file=sys.stderr)
        raise LeftOut(otherwise) from error
    except subprocess.TimeoutExpired as error:
        raise LeftOut(f"its build took more than {_BUILD_S} s") from error
    return done.stdout
