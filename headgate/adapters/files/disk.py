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
from headgate.adapters.files.origin import (
    CONFIG,
    WEIGHTS,
    Folder,
    OpenSource,
    Origin,
    OriginAwayError,
    SizedFile,
    UnfitError,
)
from headgate.adapters.rules import NAME
from headgate.adapters.source import read_source

_BLOCK_BYTES = 4 * 1024 * 1024
_PART = ".part"


class AdapterDisk:
    """Copies from the sources to a folder of each version below `folder`."""

    def __init__(self, sources: OpenSource, folder: Path, base_config: Path) -> None:
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

        Raises SourceError and UnfitError; OriginAwayError and OSError where trying again may help.
        """
        origin = self._sources(read_source(source))
        size_bytes = self._check(origin, fit)
        part = self._folder / f"{version}{_PART}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        copied = 0
        for name in (CONFIG, WEIGHTS):
            with origin.open(name) as file:
                for block in _copied(file, part / name):
                    copied += block
                    moved(copied, size_bytes)
        self._check(Folder(part), fit)  # the source may have changed meanwhile
        os.replace(part, self._folder / version)

    def remove(self, version: str) -> None:
        """Deletes the files of the version, first their name: nobody can begin to read them."""
        part = self._folder / f"{version}{_PART}"
        shutil.rmtree(part, ignore_errors=True)
        os.replace(self._folder / version, part)
        shutil.rmtree(part)

    def _check(self, origin: Origin, fit: Fit) -> int:
        """The size of both files in bytes. Raises UnfitError, and OriginAwayError."""
        with Folder(self._base_config.parent).open(self._base_config.name) as file:
            base = _json(file, self._base_config.name)
        try:
            shape = BaseShape.of(base)
        except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UnfitError(f"the base's {self._base_config.name} lacks {error}") from None
        with origin.open(CONFIG) as file:
            config, config_bytes = _json(file, CONFIG), file[1]
        with origin.open(WEIGHTS) as file:
            tensors, weights_bytes = _tensors(file), file[1]
        if problems := problems_of(config, tensors, shape, fit):
            raise UnfitError("; ".join(problems))
        return config_bytes + weights_bytes


def is_version(text: str) -> bool:
    """Whether the text is the name of a version, and so a safe name of a folder."""
    name, _, number = text.rpartition("@")
    is_name = NAME.fullmatch(name) is not None and ".." not in name
    return is_name and number.isascii() and number.isdigit() and len(number) <= 9


def _copied(origin: SizedFile, target: Path) -> Iterator[int]:
    """Copies a file and says how many bytes each block had. The copy is on the disk at the end.

    Raises OriginAwayError for a file that ends early, or that goes on.
    """
    source, left_bytes = origin
    with target.open("xb") as file:
        while block := source.read(_BLOCK_BYTES):
            left_bytes -= len(block)
            if left_bytes < 0:
                break
            file.write(block)
            yield len(block)
        file.flush()
        os.fsync(file.fileno())
    if left_bytes:
        raise OriginAwayError(f"{target.name} has changed while it was copied")


def _tensors(file: SizedFile) -> dict[str, Tensor]:
    try:
        return read_header(*file)
    except HeaderError as error:
        raise UnfitError(f"{WEIGHTS}: {error}") from None


def _json(file: SizedFile, name: str) -> dict[str, Any]:
    try:
        value = json.loads(file[0].read(file[1]))
    except (ValueError, RecursionError):
        raise UnfitError(f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise UnfitError(f"{name} is not a mapping")
    return value
