"""Counts many answers at once with the tap."""

from collections.abc import Sequence

import httpx

from tests.tap.streams import Generated


async def count_in_lua(
    batch: httpx.AsyncClient, answers: Sequence[Generated]
) -> list[tuple[bytes, dict[str, str]]]:
    """The bytes that the tap, in Envoy's own Lua, passes on of each answer, and its usage."""
    response = await batch.post("/", content=b"".join(_record(answer) for answer in answers))
    assert response.status_code == 200, response.text
    rest, results = response.content, []
    while rest:
        line, _, rest = rest.partition(b"\n")
        size, _, usage = line.decode().partition(" ")
        results.append((rest[: int(size)], dict(pair.split("=") for pair in usage.split(";"))))
        rest = rest[int(size) :]
    return results


def _record(answer: Generated) -> bytes:
    sizes = ",".join(str(len(piece)) for piece in answer.pieces)
    headers = answer.headers
    words = [headers["x-api"], headers["x-client-usage"], headers["x-n"]]
    words += [headers.get("x-served-as", "-"), sizes, headers["x-kind"]]
    return " ".join(words).encode() + b"\n" + answer.sent
