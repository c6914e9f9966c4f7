"""A client of the management API, for the command line."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from headgate.core.errors import OperatorError
from headgate.management.endpoints import PREFIX

_TIMEOUT_S = 10.0


class ApiClient:
    """Calls one gateway. `url` is its `--api`; `authorities` replace the system's.

    Without a token it reads what is open to everybody.

    Every method raises OperatorError with one line when the gateway refuses or is away.
    """

    def __init__(self, url: str, token: str | None, authorities: Path | None = None) -> None:
        self._url = url
        self._http = httpx.Client(
            base_url=url.rstrip("/") + PREFIX,
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            verify=True if authorities is None else _trusting(authorities),
            trust_env=False,
        )

    def call(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The JSON of an answer. `query` leaves out what is None."""
        params = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._http.request(method, path, json=body, params=params)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OperatorError(f"{self._url} does not answer ({error})") from None
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if response.is_success and answer:
            return answer
        detail = answer.get("detail") or "this is not the management API of Headgate"
        raise OperatorError(f"{self._url} answers {response.status_code}: {detail}")

    def rows(self, path: str) -> Iterator[dict[str, Any]]:
        """All rows of a list, page by page."""
        after: str | None = None
        while True:
            page = self.call("GET", path, after=after, limit=1000)
            yield from page["data"]
            after = page["next"]
            if after is None:
                return


def _trusting(authorities: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(authorities))
    except OSError as error:
        raise OperatorError(f"{authorities}: holds no certificate ({error.strerror})") from None
