"""The services, asked by their admin port: are they ready, and what do their metrics say?"""

from collections.abc import Mapping

import httpx

from headgate.core.samples import Samples, parse_samples
from headgate.doctor.clocks import clock_of
from headgate.doctor.finding import Finding, note, ok, problem

PART = "services"
_DAY_S = 86_400
_RENEW_DAYS, _LAST_DAYS = 21, 3


async def services(client: httpx.AsyncClient, admin_url: str, now_s: float) -> list[Finding]:
    """The findings about the services whose admin port is at `admin_url`."""
    try:
        ready = await client.get(f"{admin_url}/readyz")
        metrics = await client.get(f"{admin_url}/metrics")
        samples, state = parse_samples(metrics.text), ready.json()
        missing, away = state["missing"], dict(state.get("degraded", {}))
    except httpx.HTTPError:
        text = f"{admin_url} does not answer; start headgate, or name its address with --admin"
        return [problem(PART, text)]
    except (ValueError, LookupError, TypeError):
        text = f"{admin_url} is not the admin port of headgate; name its address with --admin"
        return [problem(PART, text)]
    found = clock_of(PART, ready, now_s) + _database(away) + from_metrics(samples, now_s)
    if missing:
        text = f"not ready: {', '.join(missing)}; read the log of headgate"
        return [problem(PART, text), *found]
    return [ok(PART, f"{admin_url} is ready"), *found]


def from_metrics(samples: Samples, now_s: float) -> list[Finding]:
    """Findings about the store, the policy, the records and the certificate, from the metrics."""
    return [
        *_store(samples),
        *_reloads(samples),
        *_records(samples),
        *_certificate(samples.value("headgate_certificate_expires_timestamp_seconds"), now_s),
    ]


def _database(away: Mapping[str, str]) -> list[Finding]:
    """`away` names each part that is away, and what follows. Older services do not tell it."""
    reason = away.get("database")
    return [] if reason is None else [problem("database", f"{reason}; start it, or its network")]


def _store(samples: Samples) -> list[Finding]:
    if samples.value("headgate_store_available") != 0:
        return []
    text = "the services do not reach Redis, and each limit's on_outage decides; start Redis"
    return [problem("store", text)]


def _reloads(samples: Samples) -> list[Finding]:
    refused = samples.value("headgate_policy_reloads_total", result="refused")
    if not refused:
        return []
    text = (
        f"{refused:.0f} changes of the file were refused since the start; run `headgate check` on"
        " it, and mend what it says"
    )
    return [note("policy", text)]


def _records(samples: Samples) -> list[Finding]:
    found = []
    failed = samples.value("headgate_records_total", outcome="failed")
    if failed:
        text = f"{failed:.0f} usage records were lost since the start; look at the disk"
        found.append(note("records", text))
    if samples.value("headgate_access_log_streams") == 0:
        text = "no proxy sends its access log now; this is so until the first request"
        found.append(note("records", text))
    return found


def _certificate(expires_s: float | None, now_s: float) -> list[Finding]:
    return certificate("certificate", expires_s, now_s) if expires_s else []


def certificate(part: str, expires_s: float, now_s: float) -> list[Finding]:
    """A finding if a certificate ends soon; both times in seconds since the epoch."""
    days = (expires_s - now_s) / _DAY_S
    if days > _RENEW_DAYS:
        return []
    if days <= 0:
        return [problem(part, f"the certificate ended {-days:.0f} days ago; renew it")]
    text = f"the certificate ends in {days:.0f} days; renew it"
    return [(problem if days <= _LAST_DAYS else note)(part, text)]
