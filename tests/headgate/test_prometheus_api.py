"""One client asks Prometheus; whatever answers in its place is named in one line."""

import httpx
import pytest

from headgate.core.errors import OperatorError
from headgate.core.prometheus_api import PrometheusApi, Series

URL = "http://prometheus.example:9090/"


def answering(status: int, text: str) -> PrometheusApi:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=text))
    return PrometheusApi(httpx.AsyncClient(transport=transport), URL)


def found(kind: str, result: str) -> str:
    return f'{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (found("scalar", '[1.5,"2.5"]'), 2.5),
        (found("vector", '[{"metric":{},"value":[1.5,"3"]}]'), 3.0),
        (found("vector", "[]"), None),
    ],
)
async def test_an_instant_query_gives_a_number_or_none(body: str, expected: float | None) -> None:
    assert await answering(200, body).instant("up") == expected


async def test_a_range_query_gives_each_series_with_its_labels() -> None:
    body = found("matrix", '[{"metric":{"pod":"a"},"values":[[1,"2"],[61,"3"]]}]')
    series = await answering(200, body).range("up", 0, 61, 60)
    assert series == [Series({"pod": "a"}, [(1.0, 2.0), (61.0, 3.0)])]


NO_RESULT = [(200, "<html>"), (404, "no"), (200, "[]"), (200, found("matrix", '[{"metric":{}}]'))]


@pytest.mark.parametrize(("status", "body"), NO_RESULT)
async def test_what_is_no_prometheus_is_named_with_the_address_to_give(
    status: int, body: str
) -> None:
    with pytest.raises(OperatorError) as raised:
        await answering(status, body).range("up", 0, 60, 60)
    assert str(raised.value) == (
        f"--prometheus http://prometheus.example:9090: answers HTTP {status} without a result:"
        " name the address below which /api/v1/query_range answers"
    )


async def test_a_refused_query_is_named_with_the_reason() -> None:
    refused = answering(400, '{"status":"error","error":"parse error"}')
    with pytest.raises(OperatorError, match=r"refuses up\(: parse error"):
        await refused.instant("up(")
