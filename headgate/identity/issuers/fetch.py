"""Fetches an issuer's keys over HTTP: its discovery document, then the set that this names."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx

DISCOVERY = "/.well-known/openid-configuration"
MAX_DOCUMENT_BYTES = 256 * 1024
TIMEOUT_S = 5.0
_ERROR_CODE = re.compile(rb'"error"\s*:\s*"([a-z_]{1,40})"')
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]
"""Returns the key set of the issuer with this URL, as bytes. Raises FetchError."""


class FetchError(Exception):
    """The keys of an issuer could not be fetched. Its text says why, for the operator."""


class HttpFetch:
    """Fetches over TLS with verified certificates, within `TIMEOUT_S`, and follows no redirect.

    The usual variables apply: `SSL_CERT_FILE` names authorities, `HTTPS_PROXY` a proxy.
    """

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, issuer: str) -> bytes:
        """The key set of an issuer. Raises FetchError."""
        return await self._read("GET", endpoint(await self.discovery(issuer), issuer, "jwks_uri"))

    async def discovery(self, issuer: str) -> bytes:
        """The discovery document of an issuer. Raises FetchError."""
        return await self._read("GET", issuer.rstrip("/") + DISCOVERY)

    async def post(
        self, url: str, form: Mapping[str, str], credentials: tuple[str, str] | None
    ) -> bytes:
        """The answer to a form, with a client's id and secret if it has one. Raises FetchError."""
        auth = httpx.USE_CLIENT_DEFAULT if credentials is None else httpx.BasicAuth(*credentials)
        return await self._read("POST", url, data=dict(form), auth=auth)

    async def aclose(self) -> None:
        """Ends all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _read(self, method: str, url: str, **sent: Any) -> bytes:
        if self._client is None:  # it loads the authorities, which only users of tokens need
            headers = {"accept": "application/json", "accept-encoding": "identity"}
            self._client = httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S)
        data = b""
        try:
            async with self._client.stream(method, url, **sent) as answer:
                async for chunk in answer.aiter_raw():
                    data += chunk
                    if len(data) > MAX_DOCUMENT_BYTES:
                        raise FetchError(f"{url} has more than {MAX_DOCUMENT_BYTES} bytes")
                if answer.status_code != httpx.codes.OK:
                    raise FetchError(f"{url} answers {answer.status_code}{_reason(data)}")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError(f"{url} cannot be read: {error or type(error).__name__}") from None
        return data


def _reason(answer: bytes) -> str:
    """The code of an error such as `invalid_client` (RFC 6749, 5.2), in brackets, or nothing."""
    matched = _ERROR_CODE.search(answer)
    return "" if matched is None else f" ({matched[1].decode()})"


def endpoint(document: bytes, issuer: str, name: str) -> str:
    """An address in a discovery document (OpenID Connect Discovery 1.0, 4.3). Raises FetchError."""
    try:
        value = json.loads(document)
        named, url = value["issuer"], value[name]
        parts = urlsplit(url)
    except KeyError:
        raise FetchError(f"{issuer}{DISCOVERY} names no `{name}`") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise FetchError(f"{issuer}{DISCOVERY} is not a discovery document") from None
    if named != issuer:
        raise FetchError(
            f"the discovery document says that the issuer is {str(named)[:200]!r}, not {issuer!r}:"
            " set `issuer` to its spelling, to the last slash"
        )
    is_local = parts.hostname in LOOPBACK and urlsplit(issuer).hostname in LOOPBACK
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise FetchError(f"its `{name}` is not https: {str(url)[:200]!r}")
    return str(url)
