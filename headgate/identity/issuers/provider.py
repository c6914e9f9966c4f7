"""Headgate as a client of issuers: where people log in, and what a code is worth."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from headgate.core.clock import Clock
from headgate.core.issuers import LoginClient
from headgate.identity.issuers.fetch import FetchError, HttpFetch, endpoint

_KEEP_S = 300.0
_RETRY_S = 10.0
"""How long an issuer that did not answer is not asked again."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A discovery document, or the failure to read it, and the end of its use."""

    found: bytes | FetchError
    until_s: float


class Provider:
    """Knows the addresses of issuers, and redeems codes. Every method raises FetchError."""

    def __init__(self, fetch: HttpFetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: dict[str, _Read] = {}
        self._reading = asyncio.Lock()

    async def endpoint(self, issuer: str, name: str) -> str:
        """The address of an issuer by its name in the discovery document."""
        async with self._reading:
            read = self._known.get(issuer)
            if read is None or read.until_s <= self._clock.monotonic_s():
                read = self._known[issuer] = await self._discovered(issuer)
        if isinstance(read.found, FetchError):
            raise read.found
        return endpoint(read.found, issuer, name)

    async def redeemed(
        self, issuer: str, client: LoginClient, form: Mapping[str, str]
    ) -> Mapping[str, object]:
        """The tokens for a code (RFC 6749, 4.1.3), as the issuer writes them."""
        url = await self.endpoint(issuer, "token_endpoint")
        sent = {"grant_type": "authorization_code", **form}
        credentials = None
        if client.secret_file is None:
            sent["client_id"] = client.client_id
        else:
            secret = _secret(client.secret_file)
            credentials = (quote_plus(client.client_id), quote_plus(secret))
        answer = await self._fetch.post(url, sent, credentials)
        try:
            tokens = json.loads(answer)
        except (ValueError, RecursionError):
            tokens = None
        if not isinstance(tokens, dict):
            raise FetchError(f"{url} answers with something else than tokens")
        return tokens

    async def _discovered(self, issuer: str) -> _Read:
        try:
            document = await self._fetch.discovery(issuer)
        except FetchError as error:
            return _Read(error, self._clock.monotonic_s() + _RETRY_S)
        return _Read(document, self._clock.monotonic_s() + _KEEP_S)


def _secret(path: Path) -> str:
    """The secret of a client; the file is read for each login."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchError(f"{path} cannot be read ({type(error).__name__})") from None
    if not secret:
        raise FetchError(f"{path} is empty, but should hold the secret of a client")
    return secret
