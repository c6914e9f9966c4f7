"""A package of another distribution in the place of ours is one clear line at the start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.core.packages import HOOK_PACKAGES, refuse_foreign_packages

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = "from ratelimit.decorators import sleep_and_retry\n"


def installed(folder: Path) -> Path:
    """A copy of what the wheel puts into an environment."""
    for name in ("headgate", *HOOK_PACKAGES):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def foreign(folder: Path) -> Path:
    """A package `ratelimit` as on PyPI: none of our modules is in it."""
    package = folder / "ratelimit"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(FOREIGN)
    (package / "decorators.py").write_text("def sleep_and_retry(call): return call\n")
    return folder


def run(*path: Path, command: tuple[str, ...] = ("--version",)) -> tuple[int, str, str]:
    """Runs `python -m headgate` with these folders in front of the import path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "headgate", *command],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_our_own_packages_are_taken() -> None:
    refuse_foreign_packages()


def test_the_version_is_one_line() -> None:
    assert run(ROOT) == (0, "headgate 0.1.0\n", "")


def test_a_package_that_shadows_ours_is_one_line_that_names_its_file(tmp_path: Path) -> None:
    other = foreign(tmp_path / "other")
    code, out, err = run(other, installed(tmp_path / "site"))

    assert (code, out) == (1, "")
    [line] = err.splitlines()
    file = other / "ratelimit" / "__init__.py"
    assert line.startswith(f"headgate: the package `ratelimit` is {file}, not Headgate's: ")
    assert line.endswith("install Headgate into an environment of its own")


def test_a_package_that_overwrote_files_of_ours_is_one_line_too(tmp_path: Path) -> None:
    site = foreign(installed(tmp_path))
    code, out, err = run(site)

    assert (code, out) == (1, "")
    [line] = err.splitlines()
    assert str(site / "ratelimit" / "__init__.py") in line


@pytest.mark.parametrize("name", HOOK_PACKAGES)
def test_a_package_whose_init_was_uninstalled_with_the_other_is_one_line(
    tmp_path: Path, name: str
) -> None:
    site = installed(tmp_path)
    (site / name / "__init__.py").unlink()
    code, _, err = run(site)

    assert code == 1
    [line] = err.splitlines()
    assert line.startswith(f"headgate: the package `{name}` is ")


def test_a_package_that_fails_at_its_import_is_not_ours(tmp_path: Path) -> None:
    site = installed(tmp_path)
    (site / "ratelimit" / "__init__.py").write_text("raise RuntimeError('Python 2 only')\n")
    code, _, err = run(site)

    assert code == 1
    assert len(err.splitlines()) == 1
