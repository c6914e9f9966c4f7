"""Sizes of bodies, in words."""


def size_text(size_bytes: int) -> str:
    """The size as people and `--body-limit` write it, such as `32 MiB` or `50 MB`."""
    for unit, unit_bytes in (("MiB", 2**20), ("MB", 10**6), ("KiB", 2**10), ("kB", 10**3)):
        if size_bytes % unit_bytes == 0 and size_bytes:
            return f"{size_bytes // unit_bytes} {unit}"
    return f"{size_bytes} bytes"


def too_large(limit_bytes: int) -> str:
    """The message to a client whose body is above the limit."""
    return (
        f"The request body is larger than {size_text(limit_bytes)}, the limit of this gateway."
        " Send less, such as fewer or smaller images and files. The limit is the operator's"
        " option --body-limit."
    )
