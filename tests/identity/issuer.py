"""An issuer of our own. It signs real tokens and serves its keys over HTTP, as a provider does."""

import hmac
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

Key = RSAKey | ECKey | OKPKey
NOW_S = 1_800_000_000


def rsa_key(bits: int = 2048) -> RSAKey:
    return RSAKey.generate_key(bits, {"use": "sig", "alg": "RS256"}, auto_kid=True)


def ec_key() -> ECKey:
    return ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def ed_key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)


def signed(header: dict[str, Any], claims: bytes | dict[str, Any], key: Any) -> bytes:
    """A token of exactly these members; bytes as key are a secret of HS256.

    A library would refuse to write some of them.
    """
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = encoded(json.dumps(header).encode()) + b"." + encoded(payload)
    if isinstance(key, bytes):
        return text + b"." + encoded(hmac.digest(key, text, "sha256"))
    return text + b"." + encoded(JWSRegistry.algorithms[header["alg"]].sign(text, key))


def encoded(data: bytes) -> bytes:
    """The canonical base64 of a token's part."""
    return urlsafe_b64encode(data).rstrip(b"=")


@dataclass(frozen=True)
class Asked:
    """A request to the issuer: `fields` are those of its query or of its form."""

    path: str
    fields: dict[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answered:
    """What the issuer answers."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class TestIssuer:
    """Its keys and its answers. `fetches` counts how often its keys were asked for.

    Without `serve` it has a name only, and tests read `document` in the place of a fetch.
    """

    __test__ = False

    def __init__(self, url: str = "https://login.example.org", *keys: Key) -> None:
        self.url = url
        self.keys: list[Key] = list(keys) or [rsa_key()]
        self.extra: list[dict[str, Any]] = []
        self.fetches = 0
        self.status = 200
        self.named: str | None = None
        self.redirect: str | None = None
        self.padding = 0
        self.now_s = NOW_S

    def rotate(self, keep: int = 1) -> None:
        """Signs with a new key; `keep` old ones stay published."""
        self.keys = [rsa_key(), *self.keys[:keep]]

    @property
    def document(self) -> bytes:
        """The published key set."""
        keys = [key.as_dict(private=False) for key in self.keys]
        return json.dumps({"keys": [*self.extra, *keys], "padding": "x" * self.padding}).encode()

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of alice; a change to None leaves one out."""
        claims = {
            "iss": self.url,
            "sub": "alice",
            "aud": "headgate",
            "iat": self.now_s,
            "exp": self.now_s + 300,
            "groups": ["ml"],
            "name": "Alice Example",
            "jti": "t-1",
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, header: dict[str, Any] | None = None, key: Key | None = None, **claims: Any
    ) -> bytes:
        """A token with these claims changed, signed by the newest key."""
        key = key or self.keys[0]
        algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}[key.key_type]
        members = {"alg": algorithm, "kid": key.kid, **(header or {})}
        kept = {name: value for name, value in members.items() if value is not None}
        return signed(kept, self.claims(**claims), key)

    async def fetch(self, url: str) -> bytes:
        """The key set, in the place of a fetch over HTTP."""
        assert url == self.url
        self.fetches += 1
        return self.document

    def discovery(self) -> dict[str, str]:
        """The discovery document."""
        return {"issuer": self.named or self.url, "jwks_uri": f"{self.url}/jwks"}

    def answer(self, asked: Asked) -> Answered | None:
        """The answer of further endpoints; None for all others."""
        return None

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serves discovery and keys on a free port of this machine."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self.url
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(issuer: TestIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked = Asked(url.path, dict(parse_qsl(url.query)), self.headers)
            answered = issuer.answer(asked)
            if answered is not None:
                self._send(answered)
            elif self.path.endswith("/.well-known/openid-configuration"):
                self._send_document(json.dumps(issuer.discovery()).encode())
            else:
                issuer.fetches += 1
                self._send_document(issuer.document)

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            asked = Asked(self.path, dict(parse_qsl(form)), self.headers)
            self._send(issuer.answer(asked) or Answered(404))

        def _send_document(self, body: bytes) -> None:
            if issuer.redirect:
                self._send(Answered(302, body, {"location": issuer.redirect}))
            else:
                self._send(Answered(issuer.status, body))

        def _send(self, answered: Answered) -> None:
            self.send_response(answered.status)
            for name, value in answered.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answered.body)))
            self.end_headers()
            self.wfile.write(answered.body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler
