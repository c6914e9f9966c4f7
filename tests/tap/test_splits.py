"""Every case, cut at every byte, in both counters: the same bytes and the same usage."""

import pytest

from tests.tap.cases_file import CLIENT_USAGES, LINE_ENDS, Case, load
from tests.tap.counting import count, cut_everywhere, single_bytes
from tests.tap.rig import TapEnvoy

CHUNKS, NAMED_EVENTS, BODIES = (
    load(f"{name}.yaml") for name in ("chunks", "named_events", "bodies")
)


async def split(
    tap: TapEnvoy, case: Case, client_usage: str, line_end: str = "\n"
) -> tuple[bytes, dict[str, str]]:
    """Runs a case in all its cuts in Envoy's own Lua. Returns the client's bytes and the usage."""
    headers = case.headers(client_usage)
    response = await tap.splitter.post("/", headers=headers, content=case.sent(line_end))
    assert response.status_code == 200, response.text
    pairs = (pair.split("=") for pair in response.headers["usage"].split(";"))
    return response.content, dict(pairs)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("client_usage", CLIENT_USAGES)
@pytest.mark.parametrize("case", CHUNKS + NAMED_EVENTS, ids=lambda case: case.name)
async def test_a_stream_is_the_same_however_it_is_cut(
    tap: TapEnvoy, case: Case, client_usage: str, line_end: str
) -> None:
    seen, usage = await split(tap, case, client_usage, LINE_ENDS[line_end])
    assert seen == case.seen(client_usage, LINE_ENDS[line_end])
    assert usage == case.usage


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("client_usage", CLIENT_USAGES)
@pytest.mark.parametrize("case", BODIES, ids=lambda case: case.name)
async def test_a_body_is_the_same_however_it_is_cut(
    tap: TapEnvoy, case: Case, client_usage: str
) -> None:
    seen, usage = await split(tap, case, client_usage)
    assert seen == case.sent()
    assert usage == case.usage


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("case", CHUNKS + NAMED_EVENTS, ids=lambda case: case.name)
def test_ext_proc_counts_a_stream_the_same_however_it_is_cut(case: Case, line_end: str) -> None:
    sent = case.sent(LINE_ENDS[line_end])
    for client_usage in CLIENT_USAGES:
        headers, seen = case.headers(client_usage), case.seen(client_usage, LINE_ENDS[line_end])
        assert count(headers, [sent]) == (seen, case.usage)
        assert count(headers, single_bytes(sent)) == (seen, case.usage)
    headers, seen = case.headers("none"), case.seen("none", LINE_ENDS[line_end])
    for pieces in cut_everywhere(sent):
        assert count(headers, pieces) == (seen, case.usage)


@pytest.mark.parametrize("case", BODIES, ids=lambda case: case.name)
def test_ext_proc_counts_a_body_the_same_however_it_is_cut(case: Case) -> None:
    sent = case.sent()
    for pieces in ([sent], single_bytes(sent), *cut_everywhere(sent)):
        assert count(case.headers("none"), pieces) == (sent, case.usage)
