"""The management API: the answer cache of a tenant is purged, and the change log says so."""

from extproc.cache.answers import Absence, AnswersAwayError
from tests.extproc.cache.builders import keep, kept_answer
from tests.management.conftest import Api

PURGE = "/tenants/acme/cache/purge"


async def test_a_purge_forgets_the_answers_of_one_tenant_and_is_logged(api: Api) -> None:
    await api.answers.keep(keep())
    await api.answers.keep(keep(tenant="globex"))

    purged = await api.ask("admin", "POST", PURGE)
    [change] = (await api.ask("finance", "GET", "/tenants/acme/changes")).json()["data"]

    assert purged.json() == {"tenant": "acme", "answers": 1}
    assert (change["action"], change["object"]) == ("cache.purge", "acme/cache")
    assert change["after"] == {"tenant": "acme", "answers": 1}
    assert (await api.answers.find("acme", "aa")).answer is Absence.ABSENT
    assert (await api.answers.find("globex", "aa")).answer == kept_answer()


async def test_a_purge_that_fails_is_told_and_not_logged(api: Api) -> None:
    async def away(_tenant: str) -> int:
        raise AnswersAwayError("away")

    api.answers.purge = away  # type: ignore[method-assign]
    answer = await api.ask("admin", "POST", PURGE)

    assert answer.status_code == 503
    assert "away" in answer.json()["detail"]
    assert (await api.ask("finance", "GET", "/tenants/acme/changes")).json()["data"] == []
