"""Tests on a real Keycloak: `make test-sso`. Without it they are not collected."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.identity.login_issuer import WEB, WEB_SECRET
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port

KEYCLOAK = os.environ.get("HEADGATE_KEYCLOAK", "")
collect_ignore_glob = [] if KEYCLOAK else ["test_*.py"]
START_S = 540
MAPPERS = [
    {
        "name": "groups",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-group-membership-mapper",
        "config": {
            "claim.name": "groups",
            "full.path": "false",
            "access.token.claim": "true",
            "id.token.claim": "true",
        },
    },
    {
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {
            "included.custom.audience": "headgate",
            "access.token.claim": "true",
            "id.token.claim": "false",
        },
    },
]
REALM = {
    "realm": "corp",
    "enabled": True,
    "sslRequired": "none",
    "groups": [{"name": "ml"}],
    "users": [
        {
            "username": "alice",
            "email": "alice@example.org",
            "firstName": "Alice",
            "lastName": "Example",
            "enabled": True,
            "emailVerified": True,
            "groups": ["ml"],
            "credentials": [{"type": "password", "value": "pw", "temporary": False}],
        }
    ],
    "clients": [
        {
            "clientId": "cli",
            "publicClient": True,
            "directAccessGrantsEnabled": True,
            "attributes": {"oauth2.device.authorization.grant.enabled": "true"},
            "protocolMappers": MAPPERS,
        },
        {
            "clientId": WEB,
            "secret": WEB_SECRET,
            "redirectUris": ["https://api.test/callback/corp"],
            "protocolMappers": MAPPERS,
        },
    ],
}
"""The settings of docs/sso.md: an audience mapper and a mapper of groups."""


class Keycloak:
    """A running Keycloak with the realm `corp`."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.issuer = f"{self.root}/realms/corp"

    def tokens(self) -> dict[str, str]:
        """The access token and the ID token of alice."""
        return self._tokens("corp", {"client_id": "cli", "username": "alice", "password": "pw"})

    def rotate(self) -> None:
        """Makes a key that signs all tokens from now on."""
        login = {"client_id": "admin-cli", "username": "admin", "password": "admin"}
        headers = {"authorization": f"Bearer {self._tokens('master', login)['access_token']}"}
        admin = f"{self.root}/admin/realms/corp"
        realm = httpx.get(admin, headers=headers).raise_for_status().json()["id"]
        provider = {
            "name": "next",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": realm,
            "config": {"priority": ["200"], "keySize": ["2048"], "algorithm": ["RS256"]},
        }
        httpx.post(f"{admin}/components", headers=headers, json=provider).raise_for_status()

    def _tokens(self, realm: str, login: dict[str, str]) -> dict[str, str]:
        url = f"{self.root}/realms/{realm}/protocol/openid-connect/token"
        data = {"grant_type": "password", "scope": "openid", **login}
        tokens: dict[str, str] = httpx.post(url, data=data).raise_for_status().json()
        return tokens


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    folder: Path = tmp_path_factory.mktemp("keycloak")
    imports = Path(KEYCLOAK) / "data" / "import"
    imports.mkdir(parents=True, exist_ok=True)
    (imports / "corp-realm.json").write_text(json.dumps(REALM))
    running = Keycloak(free_port())
    environment = {
        **os.environ,
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin",
    }
    command = [f"{KEYCLOAK}/bin/kc.sh", "start-dev", "--import-realm", "--db=dev-mem"]
    command += ["--http-host=127.0.0.1", f"--http-port={running.root.rpartition(':')[2]}"]
    with (folder / "keycloak.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_until(lambda: _answers(running), "Keycloak", START_S)
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _answers(keycloak: Keycloak) -> bool:
    try:
        url = f"{keycloak.issuer}/.well-known/openid-configuration"
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
