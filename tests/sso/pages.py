"""Somebody who fills in the pages of a Keycloak, as a browser would."""

import html
import re

import httpx


class Visitor:
    """Alice at her browser, before the pages of Keycloak."""

    def __init__(self) -> None:
        self._http = httpx.Client()

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
        """The page behind all redirects.

        Keycloak's cookies are `Secure`, which httpx does not send over http to this machine.
        """
        page = self._http.get(url)
        while page.is_redirect:
            page = self._http.get(page.headers["location"])
        return page

    def _send(self, page: httpx.Response, fields: dict[str, str]) -> httpx.Response:
        for cookie in self._http.cookies.jar:
            cookie.secure = False
        found = re.search(r'action="([^"]+)"', page.text)
        assert found is not None, page.text
        return self._http.post(page.url.join(html.unescape(found[1])), data=fields)
