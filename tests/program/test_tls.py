"""The door's certificate: the pairs that are accepted, and how a new one comes into force."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.dataplane.box import Certificate, CertifiedListener
from headgate.program.settings import TlsFiles
from headgate.program.tls import CertificateError, CertificateWatcher, read_pair
from tests.certificates import install, pem
from tests.fakes import FakeClock

YEAR_2120_S = 4733510400.0
DOOR = CertifiedListener.DOOR


def pair(certificate: str, key: str) -> Certificate:
    """The pair of these texts, read from files with these names."""
    return read_pair(
        ((Path("door.pem"), certificate.encode()), (Path("door.key"), key.encode())),
    )


@pytest.mark.parametrize("name", ["first", "ed25519"])
def test_a_pair_is_taken_with_the_day_on_which_it_expires(name: str) -> None:
    taken = pair(pem(name), pem(f"{name}.key"))

    assert taken == Certificate(pem(name), pem(f"{name}.key"), YEAR_2120_S)


def test_a_chain_and_one_file_for_both_are_taken() -> None:
    both = pem("first") + pem("ca") + pem("first.key")

    assert pair(both, both).expires_s == YEAR_2120_S


def test_the_key_is_not_shown_where_a_pair_is() -> None:
    assert "PRIVATE" not in repr(pair(pem("first"), pem("first.key")))


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("first", "second.key", "door.key: is not the key of the first certificate in door.pem"),
        ("first.key", "first.key", "door.pem: holds no certificate in PEM"),
        ("first", "first", "door.key: holds no private key in PEM"),
        ("first", "encrypted.key", "door.key: is encrypted: write it without a password"),
        ("expired", "expired.key", "door.pem: has expired"),
        ("weak", "weak.key", "door.pem: cannot be used with door.key (ee key too small)"),
    ],
)
def test_a_pair_that_no_client_would_take_is_one_line(
    certificate: str, key: str, said: str
) -> None:
    with pytest.raises(CertificateError) as caught:
        pair(pem(certificate), pem(key))

    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 30, 200])
def test_half_a_file_is_refused_and_not_a_crash(size: int) -> None:
    for certificate, key in (
        (pem("first")[:size], pem("first.key")),
        (pem("first"), pem("first.key")[:size]),
    ):
        with pytest.raises(CertificateError):
            pair(certificate, key)


@given(st.data())
def test_no_bytes_crash_the_check(data: st.DataObject) -> None:
    """Damaged files are a pair or one line, whatever damaged them."""
    texts = [bytearray(pem(name).encode()) for name in ("first", "first.key")]
    for text in texts:
        for place in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=3)):
            text[place] = data.draw(st.integers(0, 255))
    try:
        read_pair(((Path("door.pem"), bytes(texts[0])), (Path("door.key"), bytes(texts[1]))))
    except CertificateError as error:
        assert len(error.problems) == 1  # noqa: PT017


def test_words_in_any_language_may_stand_between_the_blocks() -> None:
    assert pair("# für die Tür\n" + pem("first"), pem("first.key")).expires_s == YEAR_2120_S


def test_a_folder_for_the_check_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(CertificateError, match="the temporary folder is unusable"):
        pair(pem("first"), pem("first.key"))


class Door:
    """A watched pair in a folder, what was shown to Envoy, and what was counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = install(folder, "first")
        self.shown: list[str] = []
        self.refuses = False
        self.counted = CollectorRegistry()
        self.clock = FakeClock(self.files.certificate.stat().st_mtime + 1)
        metrics = Metrics(self.counted, self.clock)
        self.watcher = CertificateWatcher(self.files, self.clock, metrics, DOOR)
        self.watcher.set_follower(self.renew)

    async def renew(self, certificate: Certificate) -> None:
        if self.refuses:
            raise OperatorError("Envoy refused its new certificate: why")
        self.shown.append(certificate.chain)

    def reloads(self, result: str) -> float | None:
        labels = {"listener": DOOR, "result": result}
        return self.counted.get_sample_value("headgate_certificate_reloads_total", labels)

    def expires_s(self) -> float | None:
        name = "headgate_certificate_expires_timestamp_seconds"
        return self.counted.get_sample_value(name, {"listener": DOOR})


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_a_file_that_cannot_be_read_is_one_line_with_its_name(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "none.pem", tmp_path / "none.key")
    metrics = Metrics(CollectorRegistry(), FakeClock())

    with pytest.raises(CertificateError, match=r"none\.pem: cannot be read \(No such file"):
        CertificateWatcher(files, FakeClock(), metrics, DOOR)
    install(tmp_path, "first")
    folder = TlsFiles(tmp_path / "door.pem", tmp_path)
    with pytest.raises(CertificateError, match=r"cannot be read \(Is a directory"):
        CertificateWatcher(folder, FakeClock(), metrics, DOOR)


async def test_a_pair_that_is_renamed_into_place_is_shown(door: Door) -> None:
    install(door.folder, "second")

    assert await door.watcher.check_once()
    assert door.shown == [pem("second")]
    assert door.reloads("applied") == 1
    assert door.expires_s() == YEAR_2120_S


async def test_a_pair_that_is_written_in_place_is_shown(door: Door) -> None:
    door.files.certificate.write_text(pem("second"))
    door.files.key.write_text(pem("second.key"))

    assert await door.watcher.check_once()
    assert door.shown == [pem("second")]


async def test_a_pair_behind_a_swapped_symlink_is_shown(tmp_path: Path) -> None:
    """As Kubernetes changes the files of a mounted secret."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        install(tmp_path / name, name)
    link = tmp_path / "now"
    link.symlink_to("first")
    shown: list[str] = []

    async def renew(certificate: Certificate) -> None:
        shown.append(certificate.chain)

    clock = FakeClock()
    files = TlsFiles(link / "door.pem", link / "door.key")
    watcher = CertificateWatcher(files, clock, Metrics(CollectorRegistry(), clock), DOOR)
    watcher.set_follower(renew)
    (tmp_path / "next").symlink_to("second")
    os.replace(tmp_path / "next", link)

    assert await watcher.check_once()
    assert shown == [pem("second")]


async def test_a_certificate_that_came_before_its_key_waits_for_it(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """Tools write one file after the other: that is no mistake yet."""
    install(door.folder, "second", "first")
    assert not await door.watcher.check_once()
    install(door.folder, "second")
    assert await door.watcher.check_once()

    assert door.shown == [pem("second")]
    assert door.reloads("refused") is None
    assert not caplog.messages


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("second", "first", "door.key: is not the key of the first certificate in "),
        ("expired", "expired", "door.pem: has expired"),
    ],
)
async def test_a_bad_pair_keeps_the_old_one_and_says_so_once_in_one_line(
    door: Door, caplog: pytest.LogCaptureFixture, certificate: str, key: str, said: str
) -> None:
    install(door.folder, certificate, key)
    door.clock.advance(10)
    for _ in range(3):
        assert not await door.watcher.check_once()

    assert door.watcher.current().chain == pem("first")
    assert door.shown == []
    assert door.reloads("refused") == 1
    [message] = caplog.messages
    assert message.startswith("certificate refused, the last good one stays in force: ")
    assert said in message


async def test_a_pair_that_envoy_refuses_is_told_and_the_next_one_is_shown(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.refuses = True
    install(door.folder, "second")
    assert not await door.watcher.check_once()
    assert "Envoy refused its new certificate: why" in caplog.messages[0]
    assert door.watcher.current().chain == pem("first")

    door.refuses = False
    install(door.folder, "ed25519")
    assert await door.watcher.check_once()
    assert door.shown == [pem("ed25519")]


async def test_files_that_vanish_keep_the_old_pair(door: Door) -> None:
    door.files.key.unlink()
    assert not await door.watcher.check_once()

    assert door.watcher.current().chain == pem("first")
    assert door.reloads("refused") == 1
