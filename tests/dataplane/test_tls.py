"""TLS of the real Envoy: the certificate for clients, and its renewal without a restart."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from headgate.dataplane.box import Certificate
from headgate.dataplane.supervisor import Envoy, EnvoyRejected
from tests.certificates import AUTHORITY, pem
from tests.envoy_process import CHAT, Rig, make_box, running_envoy, short_folder
from tests.fake_upstream import Received
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST = Certificate(pem("first"), pem("first.key"), 0.0)
SECOND = Certificate(pem("second"), pem("second.key"), 0.0)
MISMATCH = Certificate(pem("first"), pem("second.key"), 0.0)


def trusting(*alpn: str) -> ssl.SSLContext:
    """A client's context that accepts the certificates of the tests."""
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.set_alpn_protocols(alpn or ("http/1.1",))
    return context


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def envoy_of_module() -> AsyncIterator[Rig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headgate.dataplane.listener.HANDSHAKE_TIMEOUT", timedelta(seconds=2))
        async with running_envoy(certificate=FIRST) as rig:
            yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig(envoy_of_module: Rig) -> Rig:
    await envoy_of_module.reset()
    await envoy_of_module.envoy.renew(FIRST)
    return envoy_of_module


async def handshake(rig: Rig, context: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end of a new connection."""
    port = rig.box.listen_port
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    end: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return end


async def shown(rig: Rig) -> str:
    """The name in the certificate of a new connection."""
    subject = (await handshake(rig, trusting())).getpeercert()
    assert subject
    return str(dict(part[0] for part in subject["subject"])["commonName"])


async def test_requests_pass_over_tls(rig: Rig) -> None:
    assert (await rig.post()).status_code == 200
    assert rig.upstream.received[0].headers["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_both_protocols_are_offered(rig: Rig, protocol: str) -> None:
    assert (await handshake(rig, trusting(protocol))).selected_alpn_protocol() == protocol


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(rig: Rig, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    end = await handshake(rig, context)
    assert end.version() == version.name.replace("_", ".")
    cipher = end.cipher()
    assert cipher
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_1_is_refused(rig: Rig) -> None:
    context = trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        await handshake(rig, context)


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"])
async def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    rig: Rig, cipher: str
) -> None:
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        await handshake(rig, context)


async def test_a_plain_request_on_the_tls_port_ends_at_once(rig: Rig) -> None:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
    assert rig.services.checks == []


async def test_a_client_that_begins_no_handshake_is_closed(rig: Rig) -> None:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
        assert await reader.read() == b""
        writer.close()


async def test_a_new_certificate_is_shown_on_new_connections_and_old_streams_go_on(
    rig: Rig,
) -> None:
    go = asyncio.Event()

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 11\r\n\r\nfirst")
        await go.wait()
        writer.write(b"second")

    rig.upstream.answer = answer
    assert await shown(rig) == "first"
    async with rig.client.stream("POST", CHAT, json={"model": "tiny"}) as stream:
        parts = stream.aiter_raw()
        assert await anext(parts) == b"first"
        await rig.envoy.renew(SECOND)
        assert await shown(rig) == "second"
        go.set()
        assert await anext(parts) == b"second"


async def test_a_pair_that_envoy_refuses_leaves_the_old_one_in_force(rig: Rig) -> None:
    with pytest.raises(EnvoyRejected, match=r"new certificate: .*KEY_VALUES_MISMATCH"):
        await rig.envoy.renew(MISMATCH)
    assert await shown(rig) == "first"


async def test_the_key_lies_in_a_file_for_its_owner_alone_and_in_no_other(rig: Rig) -> None:
    holding = [path for path in rig.box.folder.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert holding == [rig.box.certificate_file]
    assert holding[0].stat().st_mode & 0o777 == 0o600


async def test_a_pair_that_envoy_refuses_at_its_start_is_said_and_nothing_stays() -> None:
    """Otherwise it would start, and reset every connection."""
    async with short_folder() as folder:
        box = replace(make_box(folder, {}), certificate=MISMATCH)
        envoy = Envoy(box, concurrency=1)
        with pytest.raises(EnvoyRejected, match=r"its certificate: .*KEY_VALUES_MISMATCH"):
            await envoy.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", box.listen_port)
        await envoy.stop()
        assert box.certificate_file not in box.folder.iterdir()
