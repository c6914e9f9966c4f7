"""The issuer of our own, where people log in: code flow with PKCE, device flow, and refresh."""

import json
from base64 import b64decode
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from tests.identity.issuer import Answered, Asked, TestIssuer, encoded

WEB, WEB_SECRET, CLI = "web", "a secret of: the client", "cli"


class LoginIssuer(TestIssuer):
    """Its clients are `web`, with a secret, and `cli`, without one.

    Everybody who comes is alice, with the claims in `changed`. `nonce` replaces the one that was
    asked for. `refusal` is the error for whoever redeems a code. `said` is what the device endpoint
    answers before the tokens, one after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.codes: dict[str, dict[str, str]] = {}
        self.changed: dict[str, Any] = {}
        self.nonce: str | None = None
        self.said: list[str] = []
        self.refusal = ""
        self.issued = 0
        self.refresh = ""
        self.lifetime_s = 300
        self.interval_s = 5

    def discovery(self) -> dict[str, str]:
        return {
            **super().discovery(),
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "revocation_endpoint": f"{self.url}/revoke",
        }

    def answer(self, asked: Asked) -> Answered | None:
        match asked.path:
            case "/authorize":
                return self._authorized(asked.fields)
            case "/token":
                return self._token(asked)
            case "/device" if asked.fields["client_id"] != CLI:
                return _json(401, error="invalid_client")
            case "/device":
                return _json(
                    200,
                    device_code="d-1",
                    user_code="WDJB-MJHT",
                    verification_uri=f"{self.url}/activate",
                    expires_in=600,
                    interval=self.interval_s,
                )
            case "/revoke":
                self.refresh = ""
                return Answered(200)
        return None

    def _authorized(self, fields: dict[str, str]) -> Answered:
        """Sends the person back at once, with a code."""
        assert fields["response_type"] == "code"
        assert fields["client_id"] == WEB
        assert fields["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = fields
        query = urlencode({"code": code, "state": fields["state"], "iss": self.url})
        return Answered(302, b"", {"location": f"{fields['redirect_uri']}?{query}"})

    def _token(self, asked: Asked) -> Answered:
        match asked.fields["grant_type"]:
            case "authorization_code":
                return self._redeemed(asked)
            case "refresh_token":
                right = self.refresh and asked.fields["refresh_token"] == self.refresh
                return self._tokens(CLI, None) if right else _json(400, error="invalid_grant")
            case _:
                assert asked.fields["client_id"] == CLI
                said = self.said.pop(0) if self.said else ""
                return _json(400, error=said) if said else self._tokens(CLI, None)

    def _redeemed(self, asked: Asked) -> Answered:
        """Tokens for a code, once, for the client that can show verifier and secret."""
        expected = f"{WEB}:{WEB_SECRET.replace(' ', '+').replace(':', '%3A')}"
        credentials = b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
        code = self.codes.pop(asked.fields["code"], None)
        challenge = encoded(sha256(asked.fields["code_verifier"].encode()).digest()).decode()
        is_right = (
            code is not None
            and code["code_challenge"] == challenge
            and code["redirect_uri"] == asked.fields["redirect_uri"]
        )
        if self.refusal or credentials != expected:
            return _json(401, error=self.refusal or "invalid_client")
        if code is None or not is_right:
            return _json(400, error="invalid_grant")
        return self._tokens(WEB, code["nonce"])

    def _tokens(self, client: str, nonce: str | None) -> Answered:
        self.issued += 1
        self.refresh = f"refresh-{self.issued}"
        end = {"exp": self.now_s + self.lifetime_s, "jti": f"t-{self.issued}"}
        access = self.token(**{**end, "azp": client, **self.changed})
        id_token = self.token(aud=client, nonce=self.nonce or nonce)
        return _json(
            200,
            access_token=access.decode(),
            id_token=id_token.decode(),
            refresh_token=self.refresh,
            token_type="Bearer",
            expires_in=self.lifetime_s,
        )


def _json(status: int, **members: Any) -> Answered:
    return Answered(status, json.dumps(members).encode(), {"content-type": "application/json"})
