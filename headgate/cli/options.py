"""The kinds of arguments that several commands take."""

from pathlib import Path

import click

from headgate.core.contract import Counting
from headgate.policy import NAME_RULE, is_name
from headgate.program.up import Address

FILE = click.Path(path_type=Path, dir_okay=False)
RATELIMIT_CONFIG = click.option(
    "--ratelimit-config",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file or directory that configures envoyproxy/ratelimit; may be given again.",
)
COUNTING = click.option(
    "--counting",
    type=click.Choice([one.value for one in Counting]),
    default=Counting.PROXY.value,
    show_default=True,
    help="Who counts the tokens of answers: a filter in Envoy, or ext_proc.",
)


class HostPort(click.ParamType[Address]):
    """`HOST:PORT`, also `[::1]:8080`; port 0 takes a free one."""

    name = "host:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Reads the text; a wrong one ends the command with a usage error."""
        if isinstance(value, Address):
            return value
        host, _, port = str(value).rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8080", param, ctx)
        return Address(host.strip("[]"), int(port))


class Name(click.ParamType[str]):
    """A name that the policy file takes."""

    name = "name"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The text itself; a wrong one ends the command with a usage error."""
        if not is_name(str(value)):
            self.fail(f"{str(value)!r} is not a name; allowed: {NAME_RULE}", param, ctx)
        return str(value)
