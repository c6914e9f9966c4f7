"""The files of one version where they come from: a folder, or a bucket."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from headgate.adapters.source import Source

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_WEIGHTS_BYTES = 16 * 1024**3
"""A rank of 256 on all modules of a model of 70B takes 13 GB."""
MAX_CONFIG_BYTES = 1024 * 1024

SizedFile: TypeAlias = tuple[BinaryIO, int]
"""A file at its beginning, and its size in bytes."""


class UnfitError(Exception):
    """Files that must not be loaded, now or later. `str()` says why."""


class OriginAwayError(Exception):
    """An origin that does not give a file now. `str()` says why."""


class Origin(Protocol):
    """Opens the files of one version."""

    def open(self, name: str) -> AbstractContextManager[SizedFile]:
        """Raises UnfitError for a file that is missing or too large, and OriginAwayError."""
        ...


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self, name: str) -> Iterator[SizedFile]:
        """As `Origin.open`."""
        try:
            file = (self._path / name).open("rb")
        except FileNotFoundError:
            raise UnfitError(f"there is no {name}") from None
        with file:
            yield file, checked_size(name, os.fstat(file.fileno()).st_size)


OpenSource: TypeAlias = Callable[[Source], Origin]
"""Finds the origin of a source. Raises UnfitError for one that is not allowed."""


def in_folder(root: Path) -> OpenSource:
    """The sources below this root."""

    def found(source: Source) -> Origin:
        origin = root.joinpath(*source.parts)
        for path in (origin, origin / CONFIG, origin / WEIGHTS):
            if not path.resolve().is_relative_to(root.resolve()):
                raise UnfitError(f"the source {source} leads out of its root")
        if not origin.is_dir():
            raise UnfitError(f"there is no source {source}")
        return Folder(origin)

    return found


def in_kinds(folders: OpenSource | None, buckets: OpenSource | None) -> OpenSource:
    """The sources of these kinds; None for one that the agent does not read."""

    def found(source: Source) -> Origin:
        kind = folders if source.bucket is None else buckets
        if kind is None:
            raise UnfitError(f"this agent reads no sources of such a kind as {source}")
        return kind(source)

    return found


def checked_size(name: str, size_bytes: int) -> int:
    """The size of a file. Raises UnfitError for one that is too large."""
    most_bytes = MAX_WEIGHTS_BYTES if name == WEIGHTS else MAX_CONFIG_BYTES
    if size_bytes > most_bytes:
        raise UnfitError(f"{name} is larger than {most_bytes} bytes")
    return size_bytes
