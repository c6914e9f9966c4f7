"""Envoy: does the door answer, does it ask the services, and has it taken its configuration?"""

import re
from pathlib import Path

import httpx

from headgate.doctor.clocks import clock_of
from headgate.doctor.finding import Finding, note, ok, problem

DOOR, ENVOY = "door", "envoy"
_REFUSED_CONFIG = re.compile(r"^(\S+\.update_rejected): [1-9]", re.MULTILINE)


async def door(client: httpx.AsyncClient, url: str, now_s: float) -> list[Finding]:
    """Asks the door without a key. A 401 shows that Envoy asks the services, and they answer."""
    try:
        answer = await client.get(f"{url}/v1/models")
    except httpx.HTTPError:
        text = f"{url} does not answer; start Envoy, or name its address with --url"
        return [problem(DOOR, text)]
    found = clock_of(DOOR, answer, now_s)
    if answer.status_code in (401, 429):
        return [ok(DOOR, f"{url} asks for a key"), *found]
    if answer.status_code == 503:
        text = f"{url} answers 503: Envoy does not reach the services; look whether they run"
    else:
        text = (
            f"{url} answers {answer.status_code} to a request without a key, in place of 401;"
            " this is not Headgate's door: name it with --url"
        )
    return [problem(DOOR, text), *found]


async def envoy(admin: str, timeout_s: float) -> list[Finding]:
    """Asks the admin interface, at a URL or at the path of a unix socket."""
    is_url = admin.startswith(("http://", "https://"))
    transport = None if is_url else httpx.AsyncHTTPTransport(uds=str(Path(admin)))
    base = admin if is_url else "http://envoy"
    async with httpx.AsyncClient(
        transport=transport, base_url=base, timeout=timeout_s, trust_env=False
    ) as client:
        try:
            ready = await client.get("/ready")
            stats = await client.get("/stats", params={"filter": "update_rejected$"})
        except httpx.HTTPError:
            text = f"{admin} does not answer; start Envoy, or correct --envoy-admin"
            return [problem(ENVOY, text)]
    refused = _REFUSED_CONFIG.findall(stats.text)
    found = [note(ENVOY, f"refused configuration ({name}); read its log") for name in refused]
    if ready.status_code != httpx.codes.OK:
        return [problem(ENVOY, f"not ready ({ready.text.strip()}); read its log"), *found]
    return [ok(ENVOY, "ready"), *found]
