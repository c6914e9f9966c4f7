"""Lists the wheel of each locked package for each platform: `python -m release.wheels`.

It asks pip which wheels it would install, once for each platform and Python, and writes
`release/wheels.txt`: digest and file name. This needs the network. pip takes only files whose
digest is in the lock, so the digest ties each name to the lock.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags

from release.locks import ONEBOX_LOCK, ROOT, SERVE_LOCK, Locked, read_lock

WHEELS = ROOT / "release" / "wheels.txt"
_MINORS = (11, 12, 13, 14)
_MACHINES = ("x86_64", "aarch64")
_OLDEST_GLIBC, _GLIBC = 17, 31
"""Minor versions of glibc 2: the oldest that wheels name, and the one that Envoy's needs."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A Linux that Headgate runs on: a Python 3 by its minor version, a machine, a C library.

    `tags` are the platform tags of its wheels, the best first; `lock` pins what it needs.
    """

    minor: int
    machine: str
    tags: tuple[str, ...]
    lock: Path

    def __str__(self) -> str:
        return f"Python 3.{self.minor} on {self.tags[0]}"

    def packages(self) -> list[Locked]:
        """The locked packages whose markers ask for them here."""
        environment = {
            "python_version": f"3.{self.minor}",
            "python_full_version": f"3.{self.minor}.99",  # the newest patch of that Python
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
            "os_name": "posix",
            "sys_platform": "linux",
        }
        return [
            locked
            for locked in read_lock(self.lock)
            if locked.marker is None or locked.marker.evaluate(environment)
        ]

    def accepts(self, tags: Iterable[Tag]) -> bool:
        """Whether a wheel with these tags can be installed here."""
        python = (3, self.minor)
        supported = {
            *cpython_tags(python, platforms=self.tags),
            *compatible_tags(python, f"cp3{self.minor}", platforms=self.tags),
        }
        return not supported.isdisjoint(tags)


def _platforms() -> Iterator[Platform]:
    """Every platform of a release. Envoy has no wheel for musl: the services alone run there."""
    for machine in _MACHINES:
        newest_first = range(_GLIBC, _OLDEST_GLIBC - 1, -1)
        glibc = tuple(f"manylinux_2_{number}_{machine}" for number in newest_first)
        musl = tuple(f"musllinux_1_{number}_{machine}" for number in (2, 1))
        for minor in _MINORS:
            yield Platform(minor, machine, (*glibc, f"manylinux2014_{machine}"), ONEBOX_LOCK)
            yield Platform(minor, machine, musl, SERVE_LOCK)


PLATFORMS = tuple(_platforms())


def read_wheels(path: Path = WHEELS) -> dict[str, str]:
    """The list: file names by their SHA-256 digests."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("  ", 1) for line in lines)


def _wheels_for(platform: Platform) -> dict[str, str]:
    """The wheels that pip would install there. Raises CalledProcessError if one is missing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requirements, report = folder / "requirements.txt", folder / "report.json"
        requirements.write_text("\n".join(map(_requirement, platform.packages())))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:"]
        command += ["--implementation=cp", f"--python-version=3.{platform.minor}"]
        command += [f"--platform={tag}" for tag in platform.tags]
        command += ["--require-hashes", f"--requirement={requirements}"]
        command += [f"--target={folder}", f"--report={report}"]
        subprocess.run(command, check=True)  # noqa: S603 (our own words and those of the lock)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    files = (item["download_info"] for item in installed)
    return {
        file["archive_info"]["hashes"]["sha256"]: file["url"].rpartition("/")[2] for file in files
    }


def _requirement(locked: Locked) -> str:
    hashes = (f"--hash=sha256:{digest}" for digest in sorted(locked.sha256))
    return " ".join((f"{locked.name}=={locked.version}", *hashes))


def main() -> None:
    """Asks for every platform, then writes the list, sorted by file name."""
    wheels: dict[str, str] = {}
    for platform in PLATFORMS:
        print(platform, flush=True)
        wheels |= _wheels_for(platform)
    lines = [f"{digest}  {name}\n" for digest, name in wheels.items()]
    WHEELS.write_text("".join(sorted(lines, key=lambda line: line.split()[1])), encoding="utf-8")


if __name__ == "__main__":
    main()
