"""`up` and `serve` pass each option on to the field of its name."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from headgate.cli import cli, running
from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import Tracing
from headgate.program.settings import (
    Address,
    ApiSettings,
    BoxSettings,
    DatabaseSettings,
    GrpcServer,
    LedgerSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    ServiceSettings,
    StoreSettings,
    TlsFiles,
)

API = (
    [
        *("--api", "127.0.0.1:8", "--api-tls-cert", "ac", "--api-tls-key", "ak"),
        *("--operator-token-file", "t", "--api-url", "https://api.example.org"),
    ],
    ApiSettings(
        address=Address("127.0.0.1", 8),
        tls=TlsFiles(Path("ac"), Path("ak")),
        operator_token_file=Path("t"),
        url="https://api.example.org",
    ),
)
LEDGER = (
    ["--ledger-spool", "s", "--ledger-spool-limit", "50MB"],
    LedgerSettings(spool=Path("s"), spool_limit_bytes=50_000_000),
)
SERVE: dict[str, tuple[list[str], object]] = {
    "policy": (["--policy", "p.yaml"], Path("p.yaml")),
    "hooks": (["--hooks", "unix:h.sock"], "unix:h.sock"),
    "grpc_server": (["--grpc-server", "grpcio"], GrpcServer.GRPCIO),
    "workers": (["--workers", "3"], 3),
    "admin": (["--admin", "[::1]:7"], Address("::1", 7)),
    "store": (
        [
            *("--store", "redis://r", "--store-password-file", "p"),
            *("--replicas", "3", "--store-deadline-ms", "20"),
        ],
        StoreSettings("redis://r", 3, 0.02, Path("p")),
    ),
    "database": (
        [
            *("--database", "postgresql://u@h/d", "--database-password-file", "w"),
            *("--keys-stale-s", "60", "--keys-snapshot", "k"),
        ],
        DatabaseSettings(
            url="postgresql://u@h/d",
            password_file=Path("w"),
            keys_stale_s=60.0,
            keys_snapshot=Path("k"),
        ),
    ),
    "api": API,
    "ledger": LEDGER,
    "records": (["--records", "r.jsonl"], Path("r.jsonl")),
    "log": (
        ["--log-format", "json", "--log-level", "info"],
        LogSettings(LogFormat.JSON, LogLevel.INFO),
    ),
    "cache_secret_file": (["--cache-secret-file", "c.key"], Path("c.key")),
    "drain_s": (["--drain-s", "2.5"], 2.5),
    "auth_failures_per_minute": (["--auth-failures-per-minute", "7"], 7),
    "ratelimit_config": (
        ["--ratelimit-config", "a", "--ratelimit-config", "b"],
        (Path("a"), Path("b")),
    ),
    "ratelimit_count_refused": (["--ratelimit-count-refused"], True),
    "ratelimit_metadata": (["--ratelimit-metadata"], True),
    "ratelimit_near_limit_ratio": (["--ratelimit-near-limit-ratio", "0.5"], 0.5),
}
UP: dict[str, tuple[list[str], object]] = {
    "policy": SERVE["policy"],
    "upstream": (["--upstream", "http://u"], "http://u"),
    "upstream_ca": (["--upstream-ca", "ca.pem"], Path("ca.pem")),
    "listen": (["--listen", "0.0.0.0:5"], Address("0.0.0.0", 5)),
    "admin": SERVE["admin"],
    "store": (
        ["--store", "redis://r", "--store-deadline-ms", "20", "--store-password-file", "p"],
        StoreSettings("redis://r", deadline_s=0.02, password_file=Path("p")),
    ),
    "log": SERVE["log"],
    "database": (
        [
            *("--database", "postgresql://u@h/d", "--database-password-file", "w"),
            *("--keys-stale-s", "60"),
        ],
        DatabaseSettings(url="postgresql://u@h/d", password_file=Path("w"), keys_stale_s=60.0),
    ),
    "api": API,
    "ledger": LEDGER,
    "database_dir": (["--database-dir", "db"], Path("db")),
    "cache_secret_file": SERVE["cache_secret_file"],
    "drain_s": SERVE["drain_s"],
    "records": SERVE["records"],
    "tls": (["--tls-cert", "c", "--tls-key", "k"], TlsFiles(Path("c"), Path("k"))),
    "auth_failures_per_minute": SERVE["auth_failures_per_minute"],
    "grpc_server": SERVE["grpc_server"],
    "workers": SERVE["workers"],
    "max_connections": (["--max-connections", "9"], 9),
    "body_limit_bytes": (["--body-limit", "50MB"], 50_000_000),
    "run_dir": (["--run-dir", "d"], Path("d")),
    "counting": (["--counting", "extproc"], Counting.EXTPROC),
    "path": (["--path", "standard"], HookPath.STANDARD),
    "affinity_salt": (["--affinity-salt", "s" * 32], "s" * 32),
    "tracing": (
        ["--otlp", "http://c", "--otlp-ratio", "0.5", "--otlp-follow-client"],
        Tracing("http://c", 0.5, True),
    ),
}


def settings_of(monkeypatch: pytest.MonkeyPatch, command: str, *options: str) -> Any:
    """The settings with which the command would have run."""
    taken: list[Any] = []
    monkeypatch.setattr(running, command, lambda settings, *_: settings)
    monkeypatch.setattr(running, "_run", taken.append)
    monkeypatch.setattr(running, "configure_logs", lambda _: None)
    ended = CliRunner().invoke(cli, [command, *options])
    assert ended.exit_code == 0, ended.output
    return taken[0]


@pytest.mark.parametrize(("command", "options"), [("serve", SERVE), ("up", UP)])
def test_each_option_reaches_its_field(
    monkeypatch: pytest.MonkeyPatch, command: str, options: dict[str, tuple[list[str], object]]
) -> None:
    words = [word for given, _ in options.values() for word in given]
    settings = settings_of(monkeypatch, command, *words)

    assert {name: getattr(settings, name) for name in options} == {
        name: value for name, (_, value) in options.items()
    }


def test_each_field_of_the_services_is_an_option_of_serve() -> None:
    assert SERVE.keys() == {field.name for field in fields(ServiceSettings)}


@pytest.mark.parametrize(("command", "options"), [("serve", SERVE), ("up", UP)])
def test_each_option_is_tested_here(
    command: str, options: dict[str, tuple[list[str], object]]
) -> None:
    words = {word for given, _ in options.values() for word in given if word.startswith("--")}
    declared = {
        parameter.opts[0]
        for parameter in cli.commands[command].params
        if isinstance(parameter, click.Option)
    }
    assert declared - {"--demo"} == words


def test_without_options_the_settings_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Path("headgate.yaml")
    assert settings_of(monkeypatch, "serve") == ServiceSettings(policy=policy)
    assert settings_of(monkeypatch, "up", "--demo") == BoxSettings()
