"""The Python counter on one stream, with the admission from the rig's x-* headers."""

from collections.abc import Mapping, Sequence

from extproc.counting.counter import AnswerContext, AnswerCounter, AnswerHead
from extproc.counting.names import ModelNames
from extproc.types import ClientUsage
from headgate.core.apis import Api
from tests.tap.cases_file import FAKE_TIME_MS


def counter_of(admission: Mapping[str, str]) -> AnswerCounter:
    """A new counter for an answer with the content type `x-kind`."""
    context = AnswerContext(
        Api(admission["x-api"]),
        ClientUsage(admission["x-client-usage"]),
        int(admission.get("x-n", "1")),
        "x-per-second" in admission,
        ModelNames(b"alias", admission["x-served-as"].encode())
        if "x-served-as" in admission
        else None,
    )
    head = AnswerHead(int(admission.get("x-status", "200")), admission["x-kind"], None)
    return AnswerCounter(context, head, lambda: FAKE_TIME_MS)


def count(admission: Mapping[str, str], pieces: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """The client's bytes of these pieces, and the noted usage."""
    counter = counter_of(admission)
    usage = {str(key): value for key, value in counter.begin().items()}
    seen = []
    last = len(pieces) - 1
    for number, piece in enumerate(pieces):
        chunk = counter.feed(piece, number == last)
        seen.append(piece if chunk.body is None else chunk.body)
        usage |= {str(key): value for key, value in chunk.usage.items()}
    return b"".join(seen), usage


def cut_everywhere(body: bytes) -> list[list[bytes]]:
    """The body cut in two at each byte."""
    return [[body[:at], body[at:]] for at in range(1, len(body))]


def single_bytes(body: bytes) -> list[bytes]:
    """One piece for each byte, and an empty one, as HTTP/1 ends a chunked body."""
    return [body[at : at + 1] for at in range(len(body))] + [b""]
