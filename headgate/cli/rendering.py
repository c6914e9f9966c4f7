"""`headgate render`: the request path as configuration for an Envoy that others run."""

import io
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from headgate.cli.options import (
    AFFINITY_SALT,
    BODY_LIMIT,
    COUNTING,
    PATH,
    HostPort,
    Member,
    chosen_path,
)
from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.core.sizes import size_text
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.envoy_filters import Attach, envoy_filters, placement_filters
from headgate.program.settings import Address

_HEAD = "# Rendered by `headgate render istio{options}`: change the renderer, not this file.\n"
_PLACEMENT_HEAD = (
    "# Rendered by `headgate render placement` for the services of its patches: change the"
    " renderer, not this file.\n"
)


@click.group("render")
def render_group() -> None:
    """The request path as configuration for an Envoy that others run."""


@render_group.command("istio")
@click.option(
    "--attach",
    type=Member(Attach),
    default=Attach.GATEWAY.value,
    show_default=True,
    help="Where in the mesh requests are decided.",
)
@COUNTING
@BODY_LIMIT
@PATH
def render_istio_command(
    attach: Attach, counting: Counting, body_limit_bytes: int, path: HookPath | None
) -> None:
    """Print the EnvoyFilters of a mesh: the same filters that one box runs."""
    chosen = chosen_path(path, counting, HookPath.STANDARD)
    click.echo(istio_yaml(attach, counting, body_limit_bytes, chosen), nl=False)


@render_group.command("placement")
@click.option(
    "--service",
    "services",
    type=HostPort(),
    multiple=True,
    required=True,
    help="The host and port of a Service whose pods Headgate chooses; can be repeated.",
)
@click.option(
    "--attach",
    type=click.Choice([Attach.GATEWAY.value, Attach.WAYPOINT.value]),
    default=Attach.GATEWAY.value,
    show_default=True,
    help="Where in the mesh requests are decided.",
)
@PATH
@AFFINITY_SALT
def render_placement_command(
    services: tuple[Address, ...], attach: str, path: HookPath | None, affinity_salt: str | None
) -> None:
    """Print the EnvoyFilter by which a mesh sends requests to the pods that Headgate chooses."""
    chosen = [(service.host, service.port) for service in services]
    documents = placement_filters(chosen, Attach(attach), path or HookPath.STANDARD, affinity_salt)
    click.echo(_PLACEMENT_HEAD + _yaml(documents), nl=False)


def istio_yaml(
    attach: Attach,
    counting: Counting = Counting.PROXY,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    path: HookPath = HookPath.STANDARD,
) -> str:
    """The EnvoyFilters as YAML documents; text of several lines stays readable."""
    options = "" if attach is Attach.GATEWAY else f" --attach {attach}"
    options += "" if counting is Counting.PROXY else f" --counting {counting}"
    if body_limit_bytes != BODY_LIMIT_BYTES:
        options += f" --body-limit {size_text(body_limit_bytes).replace(' ', '')}"
    options += "" if path is HookPath.STANDARD else f" --path {path}"
    documents = envoy_filters(attach, counting, body_limit_bytes, path)
    return _HEAD.format(options=options) + _yaml(documents)


def _yaml(documents: list[dict[str, object]]) -> str:
    yaml = YAML()
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda *_: True
    stream = io.StringIO()
    yaml.dump_all([_readable(document) for document in documents], stream)
    return stream.getvalue()


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _readable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_readable(inner) for inner in value]
    if isinstance(value, str):
        return LiteralScalarString(value) if "\n" in value else str(value)
    return value
