"""The files of versions in buckets of S3, or of a store that speaks like it.

The client obstore has the credentials, also those of a pod's service account, and signs a URL for
each file. Then httpx gets it, as obstore itself would follow a redirect to any other host.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, cast

import httpx
from obstore import sign
from obstore.exceptions import BaseError
from obstore.store import S3Store

from headgate.adapters.files.origin import (
    OpenSource,
    Origin,
    OriginAwayError,
    SizedFile,
    UnfitError,
    checked_size,
)
from headgate.adapters.source import Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_S = 30.0
"""The longest time for a connection, and for the next bytes."""
_SIGNED_FOR = timedelta(minutes=5)
_BLOCK_BYTES = 1024 * 1024


def in_buckets(allowed: Sequence[Source], endpoint: str | None, http: httpx.Client) -> OpenSource:
    """The sources in these buckets, or below these prefixes of them.

    `endpoint` is the URL of the store, or None for the one of AWS. Region and credentials come from
    the variables that AWS names, such as AWS_REGION.
    """
    stores = {place.bucket: _store(place.bucket, endpoint) for place in allowed if place.bucket}

    def found(source: Source) -> Origin:
        if not any(source.is_in(place) for place in allowed):
            places = " or ".join(map(str, allowed))
            raise UnfitError(f"this agent reads below {places}, and so not {source}")
        return _Prefix(stores[source.bucket or ""], source, http)

    return found


def _store(bucket: str, endpoint: str | None) -> S3Store:
    if endpoint is None:
        return S3Store(bucket)
    is_plain = endpoint.startswith("http://")
    return S3Store(bucket, endpoint=endpoint, client_options={"allow_http": is_plain})


class _Prefix:
    """The files of one version below a prefix."""

    def __init__(self, store: S3Store, source: Source, http: httpx.Client) -> None:
        self._store = store
        self._source = source
        self._http = http

    @contextmanager
    def open(self, name: str) -> Iterator[SizedFile]:
        """As `Origin.open`. An error never has the signed URL, which is a secret for some time."""
        file = f"{self._source}/{name}"
        try:
            url = sign(self._store, "GET", "/".join((*self._source.parts, name)), _SIGNED_FOR)
        except BaseError:
            raise OriginAwayError(f"{file}: there are no credentials for the bucket") from None
        headers = {"accept-encoding": "identity"}
        try:
            with self._http.stream("GET", url, headers=headers, timeout=TIMEOUT_S) as answer:
                size_bytes = checked_size(name, _size(file, answer))
                raw = _Answer(answer.iter_raw(_BLOCK_BYTES))
                yield cast("BinaryIO", io.BufferedReader(raw, _BLOCK_BYTES)), size_bytes
        except httpx.HTTPError as error:
            raise OriginAwayError(f"{file}: {type(error).__name__}") from None


def _size(file: str, answer: httpx.Response) -> int:
    """The size of the file in bytes. S3 answers 403 for one that is missing, if it may not list."""
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise UnfitError(f"there is no {file}")
    length = answer.headers.get("content-length", "")
    if answer.status_code != httpx.codes.OK or not length.isdecimal():
        raise OriginAwayError(f"{file}: the store answers {answer.status_code}")
    return int(length)


class _Answer(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """The next bytes, at most as many as the buffer takes. 0 at the end."""
        self._left = self._left or next(self._blocks, b"")
        view = memoryview(buffer)
        taken = self._left[: len(view)]
        view[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)
