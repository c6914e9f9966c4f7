"""One request to authenticate, without its transport."""

from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from extauthz import cors

RawHeaders: TypeAlias = tuple[tuple[str, bytes], ...]
"""Names in lower case with their raw values, in their order, with repeated headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The signs of a request's sender beside its credentials.

    `headers` are those of `END_USER_HEADERS` and `ORGANIZATION`. `principal` is the name in the
    certificate of the client, as the proxy has verified it on its connection; empty without one.
    """

    headers: RawHeaders = ()
    principal: str = ""


NOTHING = Shown()


class CheckInput(Struct, frozen=True, gc=False):
    """One request to authenticate.

    `credentials` are the headers that may carry a key or a token. `address` is the client's address
    as the proxy knows it; it does not identify the caller. `page` holds the headers that a browser
    adds. `opens_websocket`: the client wants to go on as a WebSocket. `request_id` is Envoy's, and
    empty from an older proxy.
    """

    method: str
    path: str
    credentials: RawHeaders
    address: str = ""
    page: cors.PageHeaders = cors.NO_PAGE
    opens_websocket: bool = False
    shown: Shown = NOTHING
    request_id: str = ""
