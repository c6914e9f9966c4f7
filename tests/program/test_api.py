"""The listener of the management API: which settings it takes, and TLS."""

import asyncio
import ssl
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from extproc.pins.memory import MemoryPins
from headgate.console.surroundings import Surroundings
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.api import start_api
from headgate.program.parts import Parts
from headgate.program.settings import (
    Address,
    ApiSettings,
    DatabaseSettings,
    ServiceSettings,
    TlsFiles,
)
from ratelimit.store.memory import MemoryStore
from tests.certificates import AUTHORITY, install, pem, shown
from tests.extauthz.builders import NoTokens
from tests.fakes import FakeClock
from tests.patience import wait_until
from tests.ports import free_port

DATABASE = DatabaseSettings(url="postgresql://u@127.0.0.1:1/x?sslmode=disable")


def parts() -> Parts:
    clock = FakeClock()
    empty = CompiledPolicy(models={}, tenants={}, keys={})
    return Parts(
        policy=lambda: empty,
        store=MemoryStore(),
        pins=MemoryPins(clock),
        clock=clock,
        metrics=Metrics(CollectorRegistry(), clock),
        verifier=NoTokens(),
    )


def nothing_around() -> AbstractAsyncContextManager[Surroundings]:
    """An empty store and no metrics, for a console that nobody opens."""

    async def metrics() -> str:
        return ""

    return nullcontext(Surroundings(peek=MemoryStore().peek, metrics=metrics))


def settings(host: str, tls: TlsFiles | None = None, token: Path | None = None) -> ServiceSettings:
    address = Address(host, free_port())
    api = ApiSettings(address=address, tls=tls, operator_token_file=token)
    return ServiceSettings(database=DATABASE, api=api)


async def start(chosen: ServiceSettings) -> None:
    async with AsyncExitStack() as stack:
        await start_api(stack, chosen, parts(), nothing_around())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "api.example.org"])
async def test_an_api_that_other_machines_reach_needs_tls(host: str) -> None:
    with pytest.raises(OperatorError, match="add --api-tls-cert"):
        await start(settings(host))


async def test_an_api_needs_a_database() -> None:
    with pytest.raises(OperatorError, match="needs a database"):
        await start(replace(settings("127.0.0.1"), database=DatabaseSettings()))


async def test_a_bad_certificate_and_a_short_token_are_errors_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("short")

    with pytest.raises(OperatorError, match="holds no certificate in PEM"):
        await start(settings("127.0.0.1", TlsFiles(file, file)))
    with pytest.raises(OperatorError, match="at least 32 characters"):
        await start(settings("127.0.0.1", token=file))


async def test_with_a_certificate_it_speaks_tls_and_knows_the_written_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    chosen = settings("127.0.0.1", install(tmp_path, "first"), token)
    url = f"https://{chosen.api.address}/api/v1"
    async with AsyncExitStack() as stack:
        await start_api(stack, chosen, parts(), nothing_around())
        trusted = ssl.create_default_context(cafile=AUTHORITY)
        client = await stack.enter_async_context(httpx.AsyncClient(verify=trusted))
        headers = {"authorization": f"Bearer {token.read_text().strip()}"}

        listed = await client.get(f"{url}/tenants", headers=headers)
        away = await client.get(f"{url}/changes", headers=headers)

        assert listed.json() == {"data": [], "next": None}
        assert away.status_code == 503
        with pytest.raises(httpx.TransportError):
            await client.get(url.replace("https", "http"))


async def test_a_new_certificate_is_shown_to_new_connections_and_a_bad_one_is_not(
    tmp_path: Path,
) -> None:
    """`first` has a key of another kind than `ed25519`: no client gets the old one beside it."""
    inputs = parts()
    chosen = settings("127.0.0.1", install(tmp_path, "first"))
    reloads = "headgate_certificate_reloads_total"
    applied, refused = ({"listener": "api", "result": word} for word in ("applied", "refused"))

    def counted(labels: dict[str, str]) -> float:
        return inputs.metrics.registry.get_sample_value(reloads, labels) or 0

    async def seen(labels: dict[str, str]) -> str:
        await asyncio.to_thread(wait_until, lambda: counted(labels) == 1, str(labels))
        return await asyncio.to_thread(shown, "127.0.0.1", address.port)

    address = chosen.api.address
    assert address is not None
    async with AsyncExitStack() as stack:
        await start_api(stack, chosen, inputs, nothing_around())
        trusted = ssl.create_default_context(cafile=AUTHORITY)
        client = await stack.enter_async_context(httpx.AsyncClient(verify=trusted))
        url = f"https://{address}/api/v1/openapi.json"
        assert (await client.get(url)).status_code == 200

        install(tmp_path, "ed25519")
        assert await seen(applied) == "ed25519"
        (tmp_path / "door.key").write_text(pem("second.key"))
        assert await seen(refused) == "ed25519"
        assert (await client.get(url)).status_code == 200, "an open connection goes on"
