"""Where the files of an adapter come from: a folder below the agents' root, or in S3. Pure.

A source names no host, so it cannot lead into the network. No part of it can lead out of its root.
"""

import re
from dataclasses import dataclass

MAX_SOURCE = 512
S3 = "s3://"
_PART = re.compile(r"[A-Za-z0-9_=@+][A-Za-z0-9._=@+-]*")
_BUCKET = re.compile(r"(?![0-9.]+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3's rule for a bucket's name: no address of IPv4 is one."""


class SourceError(ValueError):
    """A text that is no source. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """The names on the way below the agents' root, or below a bucket. `bucket` is None for a root.

    As a text it is `folder/of/adapter` or `s3://bucket/prefix/of/adapter`.
    """

    bucket: str | None
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(self.parts if self.bucket is None else (f"{S3}{self.bucket}", *self.parts))

    def is_in(self, other: "Source") -> bool:
        """Whether the other one is this one, or a folder or prefix above it."""
        return self.bucket == other.bucket and self.parts[: len(other.parts)] == other.parts


def read_source(text: str) -> Source:
    """The source of an adapter. Raises SourceError."""
    source = read_place(text) if text.startswith(S3) else Source(None, _parts(text))
    if not source.parts:
        raise SourceError("after the bucket it needs the prefix of the adapter")
    return source


def read_place(text: str) -> Source:
    """A whole bucket, or a prefix in it. Raises SourceError."""
    if not text.startswith(S3):
        raise SourceError("allowed is a bucket with or without a prefix, as in s3://adapters/acme")
    bucket, _, prefix = text.removeprefix(S3).partition("/")
    if _BUCKET.fullmatch(bucket) is None or ".." in bucket:
        raise SourceError("S3 has no bucket of such a name")
    return Source(bucket, _parts(prefix) if prefix else ())


def _parts(text: str) -> tuple[str, ...]:
    if len(text) > MAX_SOURCE:
        raise SourceError(f"it is longer than {MAX_SOURCE} characters")
    if "://" in text or text.startswith("/"):
        raise SourceError("allowed are s3://bucket/prefix and a folder below the agents' root")
    parts = tuple(text.removesuffix("/").split("/"))
    if any(_PART.fullmatch(part) is None for part in parts):
        raise SourceError(
            "each part of the path has letters, digits and . _ = @ + -, and begins with no dot"
        )
    return parts
