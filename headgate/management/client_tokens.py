"""The token that a command shows to a gateway: that of a file, or that of a login."""

import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.management.browser.origin import is_local
from headgate.management.device_flow import DeviceFlow
from headgate.management.kept_logins import KeptLogins

_EARLY_S = 30.0
"""A token is replaced so long before its end, as a command takes time and clocks differ."""


def kept_logins() -> KeptLogins:
    """The logins of this user, in the folder for their settings."""
    return KeptLogins(Path(click.get_app_dir("headgate")) / "logins")


def check_address(url: str) -> None:
    """Raises OperatorError where a token would travel in clear text."""
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (
            parts.scheme == "http" and is_local(parts.hostname or "")
        )
    except ValueError:
        is_safe = False
    if not is_safe:
        raise OperatorError(f"{url} is not https: a token of a login is not sent there")


def is_on_this_machine(url: str) -> bool:
    """Whether an address leads to this machine."""
    try:
        return is_local(urlsplit(url).hostname or "")
    except ValueError:
        return False


def token_of_login(url: str, logins: KeptLogins, clock: Clock) -> str:
    """A token that counts, renewed if it is about to expire. Raises OperatorError."""
    check_address(url)
    login = logins.get(url)
    if login is None:
        raise OperatorError(
            f"there is no login at {url}: run `headgate login --api {url}`, or name --token-file"
        )
    if login.expires_s - _EARLY_S > clock.now_s():
        return login.token
    with logins.locked(url):
        login = logins.get(url) or login
        if login.expires_s - _EARLY_S <= clock.now_s():
            login = DeviceFlow(login.issuer, clock, time.sleep).refreshed(login)
            logins.put(url, login)
    return login.token
