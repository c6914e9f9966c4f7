"""Somebody who fills in the pages of a Keycloak, as a browser would."""

import html
import re

import httpx

_MOST_REDIRECTS = 10


class Visitor:
    """Alice at her browser, before the pages of Keycloak."""

    def __init__(self) -> None:
        self._http = httpx.Client()

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def log_in(self, url: str) -> str:
        """Logs in at a page, and returns the address to which Keycloak sends her then."""
        sent = self._send(self._open(url), {"username": "alice", "password": "pw"})
        return str(sent.headers["location"])

    def confirm(self, url: str) -> None:
        """Logs in at the page of a device, and confirms what it asks for."""
        consent = self._open(self.log_in(url))
        done = self._send(consent, {"accept": "Yes"})
        assert "error" not in str(self._open(done.headers["location"]).url)

    def _open(self, url: str) -> httpx.Response:
        """The page behind all redirects."""
        page = self._kept(self._http.get(url))
        for _ in range(_MOST_REDIRECTS):
            if not page.is_redirect:
                return page
            page = self._kept(self._http.get(page.url.join(page.headers["location"])))
        raise AssertionError(f"{url} goes round: {page.headers['location']}")

    def _send(self, page: httpx.Response, fields: dict[str, str]) -> httpx.Response:
        found = re.search(r'action="([^"]+)"', page.text)
        assert found is not None, page.text
        return self._kept(self._http.post(page.url.join(html.unescape(found[1])), data=fields))

    def _kept(self, response: httpx.Response) -> httpx.Response:
        """Keycloak's cookies are `Secure`, which httpx does not send over http to this machine."""
        for cookie in self._http.cookies.jar:
            cookie.secure = False
        return response
