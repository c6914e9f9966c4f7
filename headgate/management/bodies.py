"""Reads the body of a request, up to a bound."""

from starlette.requests import Request

from headgate.management.problems import ProblemError


async def body_of(request: Request, limit_bytes: int, noun: str) -> bytes:
    """The whole body. Raises ProblemError with 413 for one that is larger; `noun` names it."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit_bytes:
            raise ProblemError(413, f"The {noun} has more than {limit_bytes} bytes.")
    return bytes(raw)
