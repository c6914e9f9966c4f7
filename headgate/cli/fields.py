"""The fields of the settings, from the options of `up` and `serve`.

Most options carry the name of their field. Those that go together become one field here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from headgate.cli.options import BOX, chosen_path
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import Tracing
from headgate.dataplane.tracing import collector as check_collector
from headgate.program.settings import (
    ApiSettings,
    DatabaseSettings,
    LedgerSettings,
    LogSettings,
    StoreSettings,
    TlsFiles,
)


def service_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ServiceSettings. Raises UsageError for options that do not go together."""
    rest = dict(options)
    joined = {
        "store": _store(rest),
        "database": _database(rest),
        "api": _api(rest),
        "ledger": LedgerSettings(rest.pop("ledger_spool"), rest.pop("ledger_spool_limit")),
        "log": LogSettings(rest.pop("log_format"), rest.pop("log_level")),
    }
    return {**rest, **joined}


def box_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of BoxSettings. Raises UsageError for options that do not go together."""
    rest = service_fields(options)
    joined = {
        "tls": _tls_files(rest.pop("tls_cert"), rest.pop("tls_key"), "--tls-cert and --tls-key"),
        "tracing": _tracing(rest),
        "path": _path(rest),
    }
    return {**rest, **joined}


def _path(rest: dict[str, Any]) -> HookPath:
    path = rest.pop("path")
    if rest["cache_secret_file"] is not None:
        if path is HookPath.LEAN:
            raise click.UsageError(
                "--cache-secret-file needs --path standard: on the lean path no body reaches the"
                " services, so no answer is kept"
            )
        path = HookPath.STANDARD
    return chosen_path(path, rest["counting"], BOX.path)


def _store(rest: dict[str, Any]) -> StoreSettings:
    return StoreSettings(
        rest.pop("store"),
        rest.pop("replicas", 1),
        rest.pop("store_deadline_ms") / 1000,
        rest.pop("store_password_file"),
    )


def _database(rest: dict[str, Any]) -> DatabaseSettings:
    url = rest.pop("database")
    password_file = rest.pop("database_password_file")
    snapshot = rest.pop("keys_snapshot", None)
    if url is None and (password_file or snapshot):
        raise click.UsageError("--database-password-file and --keys-snapshot go with a --database")
    return DatabaseSettings(
        url=url,
        password_file=password_file,
        keys_stale_s=rest.pop("keys_stale_s"),
        keys_snapshot=snapshot,
    )


def _api(rest: dict[str, Any]) -> ApiSettings:
    address = rest.pop("api")
    certificate, key = rest.pop("api_tls_cert"), rest.pop("api_tls_key")
    token_file, url = rest.pop("operator_token_file"), rest.pop("api_url")
    if address is None and (certificate or key or token_file or url):
        options = "--api-tls-cert, --api-tls-key, --api-url and --operator-token-file"
        raise click.UsageError(f"{options} need --api")
    tls = _tls_files(certificate, key, "--api-tls-cert and --api-tls-key")
    return ApiSettings(address=address, tls=tls, operator_token_file=token_file, url=url)


def _tracing(rest: dict[str, Any]) -> Tracing | None:
    url, ratio = rest.pop("otlp"), rest.pop("otlp_ratio")
    follows_client = rest.pop("otlp_follow_client")
    if url is None:
        return None
    tracing = Tracing(url, ratio, follows_client)
    check_collector(tracing)
    return tracing


def _tls_files(certificate: Path | None, key: Path | None, options: str) -> TlsFiles | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError(f"{options} go together")
    return TlsFiles(certificate, key)
