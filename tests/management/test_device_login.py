"""`headgate login` at an issuer of our own: the device flow, the file, the refresh."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headgate.core.errors import OperatorError
from headgate.core.issuers import LoginToken
from headgate.management.client_tokens import check_address, token_of_login
from headgate.management.device_flow import DeviceFlow, Prompt, Way
from headgate.management.kept_logins import KeptLogins
from tests.fakes import FakeClock
from tests.identity.issuer import NOW_S
from tests.identity.login_issuer import CLI, LoginIssuer

URL = "https://api.example.org"


@dataclass
class Desk:
    """Somebody at a command line, whose clock moves when the program waits."""

    issuer: LoginIssuer
    logins: KeptLogins
    folder: Path
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW_S))
    waited_s: list[float] = field(default_factory=list)
    asked: list[Prompt] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        self.clock.advance(seconds)

    def flow(self) -> DeviceFlow:
        return DeviceFlow(self.issuer.url, self.clock, self.wait)

    def log_in(self, token: LoginToken = LoginToken.ACCESS, client_id: str = CLI) -> None:
        way = Way(
            name="corp",
            issuer=self.issuer.url,
            client_id=client_id,
            scopes=("openid", "offline_access"),
            token=token,
        )
        self.logins.put(URL, self.flow().log_in(way, self.asked.append))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    issuer = LoginIssuer()
    folder = tmp_path / "config" / "logins"
    with issuer.serve():
        yield Desk(issuer, KeptLogins(folder), folder)


def test_a_login_waits_as_long_as_the_issuer_asks(desk: Desk) -> None:
    desk.issuer.said = ["authorization_pending", "slow_down", "authorization_pending"]

    desk.log_in()

    assert desk.asked == [Prompt(f"{desk.issuer.url}/activate", "WDJB-MJHT")]
    assert desk.waited_s == [5, 5, 10, 10]
    assert token_of_login(URL, desk.logins, desk.clock).count(".") == 2


def test_the_id_token_counts_where_the_gateway_says_so(desk: Desk) -> None:
    desk.log_in()
    access = token_of_login(URL, desk.logins, desk.clock)
    desk.log_in(LoginToken.ID)

    assert token_of_login(URL, desk.logins, desk.clock) != access


@pytest.mark.parametrize("said", ["access_denied", "expired_token", "\x1b[2Jx"])
def test_a_refused_login_says_why_and_keeps_nothing(desk: Desk, said: str) -> None:
    desk.issuer.said = [said]

    with pytest.raises(OperatorError, match="refuses the login") as refused:
        desk.log_in()

    assert str(refused.value).isprintable()
    assert desk.logins.get(URL) is None


def test_a_client_that_the_issuer_does_not_know_is_named_before_anybody_is_asked(
    desk: Desk,
) -> None:
    with pytest.raises(OperatorError, match="refuses the login: invalid_client"):
        desk.log_in(client_id="cli-of-another")

    assert desk.asked == []
    assert not desk.folder.exists()


def test_a_login_that_nobody_confirms_ends(desk: Desk) -> None:
    desk.issuer.said = ["authorization_pending"] * 1000

    with pytest.raises(OperatorError, match="in time"):
        desk.log_in()

    assert sum(desk.waited_s) == 600


def test_nobody_else_may_read_the_file(desk: Desk) -> None:
    desk.log_in()
    (path,) = desk.folder.iterdir()

    assert path.stat().st_mode & 0o777 == 0o600
    assert desk.folder.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    with pytest.raises(OperatorError, match="others may read it"):
        desk.logins.get(URL)


@pytest.mark.parametrize("data", ["", "{}", "[]", "é", "{" * 100])
def test_a_file_that_is_no_login_is_named(desk: Desk, data: str) -> None:
    desk.log_in()
    (path,) = desk.folder.iterdir()
    path.write_text(data)

    with pytest.raises(OperatorError, match="log in again"):
        desk.logins.get(URL)


def test_a_token_is_renewed_before_it_expires_and_not_earlier(desk: Desk) -> None:
    desk.log_in()
    first = token_of_login(URL, desk.logins, desk.clock)
    desk.clock.advance(desk.issuer.lifetime_s - 40)
    assert token_of_login(URL, desk.logins, desk.clock) == first
    desk.clock.advance(20)

    second = token_of_login(URL, desk.logins, desk.clock)

    assert second != first
    assert token_of_login(URL, desk.logins, desk.clock) == second
    assert desk.issuer.issued == 2


def test_a_login_that_has_ended_asks_for_another(desk: Desk) -> None:
    desk.log_in()
    login = desk.logins.get(URL)
    assert login is not None
    desk.flow().revoke(login)
    desk.clock.advance(desk.issuer.lifetime_s)

    with pytest.raises(OperatorError, match="headgate login"):
        token_of_login(URL, desk.logins, desk.clock)


def test_a_token_goes_to_the_gateway_that_it_is_for_and_no_other(desk: Desk) -> None:
    desk.log_in()

    with pytest.raises(OperatorError, match="there is no login at https://other"):
        token_of_login("https://other.example.org", desk.logins, desk.clock)
    desk.logins.remove(URL)
    assert [path.suffix for path in desk.folder.iterdir()] == []
    desk.logins.remove(URL)


@pytest.mark.parametrize("url", ["http://api.example.org", "ftp://a", "a", "http://[", ""])
def test_a_token_never_travels_in_clear_text(url: str) -> None:
    with pytest.raises(OperatorError, match="not https"):
        check_address(url)
    check_address("http://127.0.0.1:8082")


def test_an_issuer_that_is_away_is_one_line(desk: Desk) -> None:
    desk.issuer.status = 500

    with pytest.raises(OperatorError, match="does not answer as it should") as error:
        desk.log_in()

    assert os.linesep not in str(error.value)
