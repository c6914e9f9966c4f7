"""The address of the database: its forms, TLS by default, and no password anywhere."""

from pathlib import Path

import pytest

from headgate.core.errors import OperatorError
from headgate.database.address import database_address

TCP = "postgresql://headgate@db.example.org:5432/headgate"
SOCKET = "postgresql://headgate@/headgate?host=/run/postgresql"


def test_over_tcp_the_server_must_prove_its_name() -> None:
    options = database_address(TCP).options

    assert options["sslmode"] == "verify-full"
    assert options["sslrootcert"]


def test_the_url_may_choose_another_mode_of_tls() -> None:
    options = database_address(f"{TCP}?sslmode=verify-ca&sslrootcert=/etc/ca.pem").options

    assert (options["sslmode"], options["sslrootcert"]) == ("verify-ca", "/etc/ca.pem")


def test_a_unix_socket_needs_no_tls() -> None:
    assert "sslmode" not in database_address(SOCKET).options


@pytest.mark.parametrize(
    "url",
    [
        "headgate",
        "host=db user=headgate dbname=headgate",
        "mysql://headgate@db/headgate",
        "postgresql://db.example.org/headgate",
        "postgresql://headgate@db.example.org",
        "postgresql://headgate@/headgate",
        "postgresql://headgate@db:5432x/headgate?sslmode",
    ],
)
def test_what_is_no_whole_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        database_address(url)

    assert url not in str(caught.value)
    assert "postgresql://USER@HOST:PORT/DATABASE" in str(caught.value)


def test_an_unknown_option_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(OperatorError, match="service; allowed: dbname, host, passfile"):
        database_address(f"{TCP}?service=x")


@pytest.mark.parametrize("url", [TCP.replace("@", ":s3cret@"), f"{TCP}?password=s3cret"])
def test_a_password_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(OperatorError, match="--database-password-file") as caught:
        database_address(url)

    assert "s3cret" not in str(caught.value)


def test_the_password_is_read_again_for_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    address = database_address(TCP, file)
    assert address.connection_options()["password"] == "one"

    file.write_text("two\n")

    assert address.connection_options()["password"] == "two"
    assert "two" not in repr(address)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_file_without_a_password_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)

    with pytest.raises(OperatorError, match=str(file)):
        database_address(TCP, file)
