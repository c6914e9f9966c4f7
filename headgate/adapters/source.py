"""Where the files of an adapter come from: a folder below the root of the agents. Pure.

A source names no host, so it cannot lead into the network. No part of it can lead out of the root.
"""

import re

MAX_SOURCE = 512
_PART = re.compile(r"[A-Za-z0-9_=@+][A-Za-z0-9._=@+-]*")


class SourceError(ValueError):
    """A text that is no source. `str()` says why."""


def read_source(text: str) -> tuple[str, ...]:
    """The names on the way below the root, from `folder/of/adapter`. Raises SourceError."""
    if len(text) > MAX_SOURCE:
        raise SourceError(f"it is longer than {MAX_SOURCE} characters")
    if "://" in text or text.startswith("/"):
        raise SourceError("allowed is a folder below the root of the agents, as in acme/sql-7")
    parts = tuple(text.removesuffix("/").split("/"))
    if any(_PART.fullmatch(part) is None for part in parts):
        raise SourceError(
            "each part of the path has letters, digits and . _ = @ + -, and begins with no dot"
        )
    return parts
