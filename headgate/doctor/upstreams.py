"""Each vLLM: does it answer, and does it serve what the policy says of it?"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from headgate.core.policy import CompiledPolicy
from headgate.doctor.clocks import clock_of
from headgate.doctor.finding import Finding, note, ok, problem
from headgate.doctor.reachable import reason, upstream_client
from headgate.doctor.services import certificate


@dataclass(slots=True)
class Upstream:
    """One vLLM: its URL, the longest context and the names that the policy expects there."""

    part: str
    url: str
    context_tokens: int
    names: set[str] = field(default_factory=set)


async def upstreams(
    policy: CompiledPolicy, authorities: Path | None, now_s: float
) -> list[Finding]:
    """The findings about every vLLM of the policy. Raises OperatorError for bad authorities."""
    asked = list(expected(policy))
    async with upstream_client([one.url for one in asked], authorities) as client:
        found = await asyncio.gather(*(_upstream(client, one, now_s) for one in asked))
    return [finding for findings in found for finding in findings]


def expected(policy: CompiledPolicy) -> Iterator[Upstream]:
    """Each base model's vLLM, or those of its versions, with the names of its adapters."""
    names: dict[str, set[str]] = {}
    for model in policy.models.values():
        names.setdefault(model.base, set()).add(model.served_as)
    for name, model in policy.models.items():
        if name != model.base:
            continue
        if model.versions is None:
            yield Upstream(f"vLLM of {name}", model.upstream, model.context_tokens, names[name])
            continue
        for version in model.versions.all:
            part = f"vLLM of {name} {version.name}"
            yield Upstream(part, version.upstream, model.context_tokens, names[name])


async def _upstream(client: httpx.AsyncClient, one: Upstream, now_s: float) -> list[Finding]:
    try:
        health = await client.get(f"{one.url}/health")
        answer = await client.get(f"{one.url}/v1/models")
        served = {model["id"]: model for model in answer.json()["data"]}
    except httpx.HTTPError as error:
        return [problem(one.part, f"{one.url} {reason(error)}; start it, or correct its upstream")]
    except (ValueError, LookupError, TypeError):
        text = f"{one.url}/v1/models lists no models; write the URL of a vLLM as its upstream"
        return [problem(one.part, text)]
    found = clock_of(one.part, answer, now_s) + _end_of_certificate(one.part, answer, now_s)
    found += compared(one, served)
    if health.status_code != httpx.codes.OK:
        text = f"{one.url}/health answers {health.status_code}; restart it, and read its log"
        return [problem(one.part, text), *found]
    return found or [ok(one.part, f"{one.url} serves {', '.join(sorted(one.names))}")]


def compared(one: Upstream, served: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Compares the policy with vLLM's list of models, by their ids."""
    found = []
    listed = ", ".join(sorted(served)) or "nothing"
    for name in sorted(one.names - served.keys()):
        text = (
            f"it does not serve {name}, but {listed}; write one of these as served_as or adapter,"
            f" or start vLLM with {name}"
        )
        found.append(problem(one.part, text))
    longest = [model.get("max_model_len") for model in served.values()]
    known = [tokens for tokens in longest if isinstance(tokens, int)]
    if known and one.context_tokens > min(known):
        text = (
            f"context_tokens is {one.context_tokens}, and vLLM takes {min(known)}; write"
            f" context_tokens: {min(known)}"
        )
        found.append(problem(one.part, text))
    elif known and one.context_tokens < min(known):
        text = (
            f"context_tokens is {one.context_tokens}, and vLLM takes {min(known)}; write more"
            " if clients shall use it"
        )
        found.append(note(one.part, text))
    return found


def _end_of_certificate(part: str, answer: httpx.Response, now_s: float) -> list[Finding]:
    stream = answer.extensions.get("network_stream")
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    shown = None if tls is None else tls.getpeercert()
    if not shown:
        return []
    return certificate(part, ssl.cert_time_to_seconds(shown["notAfter"]), now_s)
