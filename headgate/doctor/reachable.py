"""Asks each vLLM at the start whether it answers: clients of a silent one would get 503."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx

from headgate.core.errors import OperatorError
from headgate.dataplane.upstream import ca_bundle

_TIMEOUT_S = 2.0
_HOSTNAME_MISMATCH, _IP_MISMATCH, _EXPIRED = 62, 64, 10
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH and _CERT_HAS_EXPIRED."""


async def silent(upstreams: Mapping[str, str], authorities: Path | None = None) -> dict[str, str]:
    """The base models whose vLLM does not answer now, each with the reason as a clause.

    `upstreams` maps each base model to its URL, and `authorities` is as for `ca_bundle`. Any answer
    counts. Proxies of the environment are not used, as Envoy uses none.
    """
    async with upstream_client(upstreams.values(), authorities) as client:
        answers = await asyncio.gather(*(_problem(client, url) for url in upstreams.values()))
    return {
        model: problem
        for model, problem in zip(upstreams, answers, strict=True)
        if problem is not None
    }


def upstream_client(urls: Iterable[str], authorities: Path | None) -> httpx.AsyncClient:
    """A client that trusts the authorities, if a URL needs any. Raises OperatorError."""
    needs_tls = any(url.startswith("https:") for url in urls)
    trust = check_authorities(authorities) if needs_tls else ssl.create_default_context()
    return httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=trust)


def check_authorities(authorities: Path | None) -> ssl.SSLContext:
    """A context that trusts them, as Envoy will. Raises OperatorError for a bad file."""
    bundle = ca_bundle(authorities)
    try:
        return ssl.create_default_context(cafile=bundle)
    except (OSError, ssl.SSLError) as error:
        no_pem = isinstance(error, ssl.SSLError)
        reason = "holds no certificate in PEM" if no_pem else f"cannot be read ({error.strerror})"
        raise OperatorError(f"{bundle}: {reason}; name another file with --upstream-ca") from None


async def _problem(client: httpx.AsyncClient, url: str) -> str | None:
    try:
        await client.get(f"{url}/health")
    except httpx.HTTPError as error:
        return reason(error)
    return None


def reason(error: BaseException) -> str:
    """The clause that says why a call failed, and what to do if its certificate is the cause."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    match cause:
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=message):
            return f"has a certificate that is not trusted ({message}): {_remedy(code)}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            return "does not speak TLS: write its URL with http://"
    return "does not answer yet"


def _remedy(code: int) -> str:
    if code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return "write its URL with a name of the certificate"
    if code == _EXPIRED:
        return "renew it"
    return "name its authority, or the certificate itself, with --upstream-ca FILE"
