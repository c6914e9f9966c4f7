"""The lines that one box prints once it is ready."""

import shlex
from collections.abc import Iterator

from headgate.program.settings import ApiSettings, BoxSettings
from headgate.program.simulated import RunningDemo


def welcome(settings: BoxSettings, admin_url: str, running: RunningDemo | None) -> Iterator[str]:
    """Where the box answers and, of the demo, its keys and a command to try."""
    url = settings.listen.url("http" if settings.tls is None else "https")
    yield f"Headgate is ready on {url} (admin {admin_url}, usage records in {settings.records})"
    yield f"Metrics: {admin_url}/metrics, and Envoy's: {admin_url}/stats/prometheus"
    if settings.api.address is not None:
        yield from _console(settings.api)
    if running is None:
        return
    yield f"The vLLM here is a simulator, process {running.simulator_pid}"
    demo = running.demo
    for key in demo.keys:
        yield f"  {key.secret}  {key.tenant}/{key.user}: {key.note}"
    trust = ""
    if settings.tls is not None:
        trust = f"--cacert {shlex.quote(str(settings.tls.certificate))} "
    yield "Try it:"
    yield (
        f"  curl {trust}{url}/v1/chat/completions "
        f"-H 'Authorization: Bearer {demo.keys[0].secret}' -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{demo.model}", "max_tokens": 16, '
        f'"messages": [{{"role": "user", "content": "Hello"}}]}}\''
    )


def _console(api: ApiSettings) -> Iterator[str]:
    """Where the console is, and how an operator logs in."""
    url = api.url or str(api.address and api.address.url("http" if api.tls is None else "https"))
    token = "" if api.operator_token_file is None else f"; log in with {api.operator_token_file}"
    yield f"Console: {url}/console{token}"
