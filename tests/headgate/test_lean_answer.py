"""The answer of the lean path: what requests share is built once, and only that is shared."""

from collections.abc import Mapping

from extproc.edits import Edited
from extproc.types import Admit
from headgate._gen.auth_pb2 import CheckResponse
from headgate.core.contract import PRIORITY_HEADER, AdmissionKey, Header
from headgate.lean import wire
from ratelimit.answers import Admitted


def _answer(
    reservation: str, user: str = "alice", priority: int | None = None, **more: str
) -> CheckResponse:
    admission = {
        AdmissionKey.RESERVATION: reservation,
        AdmissionKey.USER: user,
        AdmissionKey.ESTIMATE: "10",
        **{AdmissionKey(key): text for key, text in more.items()},
    }
    admit = Admit(headers={Header.USER: user}, admission=admission, rewrite=None)
    return wire.encode_admission(Edited(admit, ()), Admitted((), priority=priority), (), ())


def _metadata(response: CheckResponse) -> Mapping[str, str]:
    fields = response.dynamic_metadata.fields
    return {key: fields[key].string_value for key in fields}


def test_the_shared_part_of_an_answer_is_built_once_for_the_requests_of_a_caller() -> None:
    _answer("r1")
    built = wire._admission_template.cache_info().misses
    for number in range(100):
        _answer(f"r{number}", priority=number)
    assert wire._admission_template.cache_info().misses == built


def test_an_answer_carries_nothing_of_an_earlier_request() -> None:
    first = _answer("r1", text_bytes="7", priority=3)
    second = _answer("r2")
    assert _metadata(first)[AdmissionKey.TEXT_BYTES] == "7"
    assert _metadata(second) == {"reservation": "r2", "user": "alice", "estimate": "10"}
    assert _answer("r2", user="bob").ok_response.headers[0].header.value == "bob"


def test_a_priority_is_set_or_a_clients_own_is_removed_but_never_both() -> None:
    ranked, plain = _answer("r1", priority=3).ok_response, _answer("r2").ok_response
    assert PRIORITY_HEADER in [option.header.key for option in ranked.headers]
    assert PRIORITY_HEADER not in ranked.headers_to_remove
    assert PRIORITY_HEADER in plain.headers_to_remove
