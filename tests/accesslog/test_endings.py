"""How an answer ended, and whether the upstream answered at all, from Envoy's own facts."""

from typing import Any

import pytest

from accesslog.endings import ended_of, upstream_status
from accesslog.types import Ended
from headgate.core.settlement import read_usage
from tests.accesslog.entries import USAGE, entry

CUT = {"status": "200", "events": "5"}
NOTHING: dict[str, Any] = {"upstream_rx_s": None, "upstream_tx_s": None}
CASES: dict[str, tuple[dict[str, Any], int | None, Ended | None]] = {
    "a whole stream": ({}, 200, Ended.COMPLETE),
    "an error of the upstream": (
        {"status": 500, "usage": {"status": "500", "complete": "1"}},
        500,
        Ended.COMPLETE,
    ),
    "a stream that the upstream cut": (
        {"usage": CUT, "flags": ("UPE",), "details": "upstream_reset_after_response_started{...}"},
        200,
        Ended.UPSTREAM_BROKE,
    ),
    "a stream without its last event": ({"usage": CUT}, 200, Ended.UPSTREAM_BROKE),
    "a stream that reported an error": (
        {"usage": {**USAGE, "error": "1"}},
        200,
        Ended.UPSTREAM_BROKE,
    ),
    "a client that left in mid-stream": (
        {"usage": CUT, "flags": ("DC",), "details": "downstream_remote_disconnect"},
        200,
        Ended.CLIENT_LEFT,
    ),
    "a client that left behind the last event": (
        {"flags": ("DC",), "details": "downstream_remote_disconnect"},
        200,
        Ended.COMPLETE,
    ),
    "a client that left before any answer": (
        {"status": None, "usage": {}, "flags": ("DC",), "upstream_rx_s": None},
        None,
        Ended.CLIENT_LEFT,
    ),
    "an upstream that refuses connections": (
        {
            "status": 503,
            "usage": {"status": "503", "complete": "1"},
            "flags": ("UF", "URX"),
            "details": "upstream_reset_before_response_started{connection_failure}",
            **NOTHING,
        },
        None,
        Ended.UPSTREAM_BROKE,
    ),
    "an upstream that broke the second try": (
        {
            "status": 503,
            "usage": {"status": "503", "complete": "1"},
            "flags": ("UC", "URX"),
            "details": "upstream_reset_before_response_started{connection_termination}",
        },
        None,
        Ended.UPSTREAM_BROKE,
    ),
    "no healthy pod": (
        {"status": 503, "flags": ("UH",), "details": "no_healthy_upstream", **NOTHING},
        None,
        Ended.UPSTREAM_BROKE,
    ),
    "a limit": (
        {
            "status": 429,
            "usage": {"status": "429", "complete": "1"},
            "flags": ("RL",),
            "details": "request_rate_limited",
            **NOTHING,
        },
        None,
        None,
    ),
    "a store that is away": (
        {
            "status": 503,
            "usage": {"status": "503", "complete": "1"},
            "flags": ("RLSE",),
            "details": "rate_limiter_error",
            **NOTHING,
        },
        None,
        None,
    ),
    "a wrong key": ({"status": 401, "usage": {}, "flags": ("UAEX",), **NOTHING}, None, None),
    "a proxy whose tap wrote nothing": ({"usage": {}}, 200, Ended.COMPLETE),
}


@pytest.mark.parametrize(("changes", "status", "ended"), CASES.values(), ids=CASES.keys())
def test_the_upstream_has_a_status_only_if_it_answered(
    changes: dict[str, Any], status: int | None, ended: Ended | None
) -> None:
    logged = entry(**changes)
    usage = read_usage(logged.usage)
    assert upstream_status(logged, usage) == status
    assert ended_of(logged, usage, status) is ended
