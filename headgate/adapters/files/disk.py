"""The folders of versions on a pod's own disk: copied whole or not at all, and never changed.

vLLM reads an adapter while all streams of its pod wait, so a load from a slow disk stops them.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headgate.adapters.files.check import BaseShape, Fit, problems_of
from headgate.adapters.files.header import HeaderError, Tensor, read_header
from headgate.adapters.rules import NAME
from headgate.adapters.source import read_source

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1024 * 1024
_BLOCK_BYTES = 4 * 1024 * 1024
_PART = ".part"


class UnfitError(Exception):
    """Files that must not be loaded, now or later. `str()` says why."""


class AdapterDisk:
    """Copies from below `sources` to a folder of each version below `folder`."""

    def __init__(self, sources: Path, folder: Path, base_config: Path) -> None:
        self._sources = sources
        self._folder = folder
        self._base_config = base_config

    def versions(self) -> list[str]:
        """The versions whose files are whole."""
        return sorted(one.name for one in self._folder.iterdir() if is_version(one.name))

    def has(self, version: str) -> bool:
        """Whether the files of the version are whole."""
        return (self._folder / version).is_dir()

    def copy(self, version: str, source: str, fit: Fit, moved: Callable[[int, int], None]) -> None:
        """Checks the files, then copies them. `moved` hears of the bytes: copied, and in all.

        Raises UnfitError, and OSError where trying again may help.
        """
        origin = self._origin(source)
        self._check(origin, fit)
        part = self._folder / f"{version}{_PART}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        sizes = {name: (origin / name).stat().st_size for name in (CONFIG, WEIGHTS)}
        copied = 0
        for name in sizes:
            for block in _copied(origin / name, part / name):
                copied += block
                moved(copied, sum(sizes.values()))
        self._check(part, fit)  # the source may have changed meanwhile
        os.replace(part, self._folder / version)

    def remove(self, version: str) -> None:
        """Deletes the files of the version, first their name: nobody can begin to read them."""
        part = self._folder / f"{version}{_PART}"
        shutil.rmtree(part, ignore_errors=True)
        os.replace(self._folder / version, part)
        shutil.rmtree(part)

    def _origin(self, source: str) -> Path:
        """The folder of a source. Raises UnfitError for one that leads out of the root by links."""
        origin = self._sources.joinpath(*read_source(source))
        root = self._sources.resolve()
        for path in (origin, origin / CONFIG, origin / WEIGHTS):
            if not path.resolve().is_relative_to(root):
                raise UnfitError(f"the source {source} leads out of its root")
        if not origin.is_dir():
            raise UnfitError(f"there is no source {source}")
        return origin

    def _check(self, folder: Path, fit: Fit) -> None:
        config = _json(folder / CONFIG)
        base = _json(self._base_config)
        try:
            shape = BaseShape.of(base)
        except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UnfitError(f"the base's {self._base_config.name} lacks {error}") from None
        problems = problems_of(config, _tensors(folder / WEIGHTS), shape, fit)
        if problems:
            raise UnfitError("; ".join(problems))


def is_version(text: str) -> bool:
    """Whether the text is the name of a version, and so a safe name of a folder."""
    name, _, number = text.rpartition("@")
    is_name = NAME.fullmatch(name) is not None and ".." not in name
    return is_name and number.isascii() and number.isdigit() and len(number) <= 9


def _copied(origin: Path, target: Path) -> Iterator[int]:
    """Copies a file and says how many bytes each block had. The copy is on the disk at the end."""
    with origin.open("rb") as source, target.open("xb") as file:
        while block := source.read(_BLOCK_BYTES):
            file.write(block)
            yield len(block)
        file.flush()
        os.fsync(file.fileno())


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            return read_header(file, path.stat().st_size)
    except FileNotFoundError:
        raise UnfitError(f"there is no {path.name}") from None
    except HeaderError as error:
        raise UnfitError(f"{path.name}: {error}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UnfitError(f"{path.name} is larger than {MAX_CONFIG_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnfitError(f"there is no {path.name}") from None
    except (ValueError, RecursionError):
        raise UnfitError(f"{path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise UnfitError(f"{path.name} is not a mapping")
    return value
