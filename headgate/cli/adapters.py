"""`headgate adapters`: adapters that are registered at run time, and the agent of a pod."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from headgate.adapters.source import Source, SourceError, read_place
from headgate.cli.api import AS_JSON, calls_api, segment, show
from headgate.cli.options import FILE, HostPort
from headgate.core.errors import OperatorError
from headgate.management.client import ApiClient
from headgate.program.adapter_agent import AgentSettings, run_agent
from headgate.program.settings import Address


class Bucket(click.ParamType[Source]):
    """`s3://BUCKET` or `s3://BUCKET/PREFIX`."""

    name = "bucket"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Source:
        """Reads the text; a wrong one ends the command with a usage error."""
        if isinstance(value, Source):
            return value
        try:
            return read_place(str(value))
        except SourceError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_COLUMNS = ("name", "tenant", "base", "copies", "shared_with", "versions")
_PLACE_COLUMNS = ("version", "weight", "pod", "step", "gets_requests", "error")
_POLL_S = 1.0
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group("adapters")
def adapters_group() -> None:
    """LoRA adapters that are registered at run time."""


@adapters_group.command("list")
@calls_api
@click.option("--tenant", help="Only those that this tenant may use.")
@AS_JSON
def list_command(*, api: ApiClient, tenant: str | None, as_json: bool) -> None:
    """List the adapters."""
    path = "/adapters" if tenant is None else f"/tenants/{segment(tenant)}/adapters"
    rows = list(api.rows(path))
    show(rows if as_json else map(_line, rows), _COLUMNS, as_json=as_json)


@adapters_group.command("show")
@calls_api
@click.argument("adapter")
@AS_JSON
def show_command(*, api: ApiClient, adapter: str, as_json: bool) -> None:
    """Show the versions of an adapter, and the pods that have them."""
    _show(api.call("GET", f"/adapters/{segment(adapter)}"), as_json=as_json)


@adapters_group.command("register")
@calls_api
@click.argument("adapter")
@click.option("--tenant", required=True, help="The tenant that owns it.")
@click.option("--base", required=True, help="The model of the policy on which it runs.")
@click.option("--source", required=True, help="Its folder, or s3://BUCKET/PREFIX.")
@click.option("--copies", type=int, default=1, show_default=True, help="How many pods load it.")
@click.option("--share", multiple=True, metavar="TENANT", help="A tenant that may use it; repeat.")
@click.option("--wait-s", type=click.FloatRange(min=0), default=0.0, help="Waits for its load [0].")
@AS_JSON
def register_command(
    *, api: ApiClient, adapter: str, share: tuple[str, ...], wait_s: float, **options: Any
) -> None:
    """Register an adapter, or the next version of one.

    The first version gets all requests. A later one gets none until `headgate adapters weigh`.
    """
    as_json = options.pop("as_json")
    body = {"name": adapter, "shared_with": list(share), **options}
    registered = api.call("POST", "/adapters", body)
    if wait_s:
        registered = _waited(api, registered, wait_s)
    _show(registered, as_json=as_json)


@adapters_group.command("weigh")
@calls_api
@click.argument("adapter")
@click.argument("weights", nargs=-1, required=True, metavar="VERSION=WEIGHT...")
@AS_JSON
def weigh_command(*, api: ApiClient, adapter: str, weights: tuple[str, ...], as_json: bool) -> None:
    """Split the conversations between versions, as in `1=90 2=10`, in one step."""
    body = {"weights": dict(map(_weight, weights))}
    _show(api.call("PATCH", f"/adapters/{segment(adapter)}", body), as_json=as_json)


@adapters_group.command("share")
@calls_api
@click.argument("adapter")
@click.argument("tenants", nargs=-1, metavar="TENANT...")
@AS_JSON
def share_command(*, api: ApiClient, adapter: str, tenants: tuple[str, ...], as_json: bool) -> None:
    """Share an adapter with these tenants, and with no others."""
    body = {"shared_with": list(tenants)}
    _show(api.call("PATCH", f"/adapters/{segment(adapter)}", body), as_json=as_json)


@adapters_group.command("unload")
@calls_api
@click.argument("adapter")
@click.option("--version", type=int, help="This version [the whole adapter].")
@AS_JSON
def unload_command(*, api: ApiClient, adapter: str, version: int | None, as_json: bool) -> None:
    """Unload a version, or a whole adapter, for good."""
    path = f"/adapters/{segment(adapter)}"
    end = "remove" if version is None else f"versions/{version}/withdraw"
    _show(api.call("POST", f"{path}/{end}"), as_json=as_json)


@adapters_group.command("agent")
@click.option("--listen", type=HostPort(), default="0.0.0.0:9003", show_default=True)
@click.option("--vllm", default="http://127.0.0.1:8000", show_default=True, metavar="URL")
@click.option("--sources", type=_FOLDER, help="The root of sources that are folders.")
@click.option("--bucket", multiple=True, type=Bucket(), help="A bucket of sources; repeat.")
@click.option("--s3-endpoint", metavar="URL", help="The store of the buckets [AWS].")
@click.option("--folder", type=_FOLDER, required=True, help="Where vLLM reads adapters.")
@click.option("--base-config", type=FILE, required=True, help="The base model's config.json.")
def agent_command(*, listen: Address, bucket: tuple[Source, ...], **options: Any) -> None:
    """Copy and check the files of adapters, beside the vLLM of a pod."""
    if options["sources"] is None and not bucket:
        raise click.UsageError("name the sources with --sources, --bucket, or both")
    asyncio.run(run_agent(AgentSettings(address=listen, buckets=bucket, **options)))


def _weight(text: str) -> tuple[str, int]:
    version, _, weight = text.partition("=")
    if not (version.isdigit() and weight.isdigit()):
        raise click.UsageError(f"{text}: name a version and its weight, as in 2=100")
    return version, int(weight)


def _waited(api: ApiClient, adapter: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """The adapter once a pod has its newest version. Says what happens meanwhile."""
    number = adapter["versions"][-1]["number"]
    end_s, said = time.monotonic() + wait_s, ""
    while True:
        adapter = api.call("GET", f"/adapters/{segment(adapter['name'])}")
        places = next(one["places"] for one in adapter["versions"] if one["number"] == number)
        news = ", ".join(f"{place['pod']} {place['step']}" for place in places)
        if news != said:
            click.echo(news or "no pod has room for it yet", err=True)
            said = news
        if any(place["gets_requests"] for place in places):
            return adapter
        if failed := [place for place in places if place["has_failed"]]:
            raise OperatorError(f"{failed[0]['pod']}: {failed[0]['error']}")
        if time.monotonic() >= end_s:
            raise OperatorError(f"no pod has loaded it within {wait_s:g} s: {news or 'no places'}")
        time.sleep(_POLL_S)


def _show(adapter: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(adapter))
    else:
        show(_places(adapter), _PLACE_COLUMNS, as_json=False)


def _places(adapter: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line for each place, and one for a version without any."""
    for version in adapter["versions"]:
        if version["withdrawn_at"] is None or version["places"]:
            known = {"version": version["name"], "weight": version["weight"]}
            nowhere = {"pod": None, "step": "waiting", "gets_requests": False, "error": None}
            yield from ({**known, **place} for place in version["places"] or [nowhere])


def _line(adapter: dict[str, Any]) -> dict[str, Any]:
    live = (one for one in adapter["versions"] if one["withdrawn_at"] is None)
    return {**adapter, "versions": [f"{one['number']}={one['weight']}" for one in live]}
