"""The page of a reader's theme and time zone."""

from functools import partial

from starlette.responses import RedirectResponse, Response

from headgate.console.settings import KEEP_S, THEME_COOKIE, THEMES, ZONE_COOKIE, zones
from headgate.console.visit import ROOT, View, Visit
from headgate.management.problems import ProblemError


async def show(_visit: Visit) -> View:
    """The choice in force."""
    return View("preferences.html", {"zones": zones()})


async def save(visit: Visit) -> Response:
    """Keeps what the form names, and goes back to the page from which it came."""
    theme, zone = visit.form.get("theme"), visit.form.get("zone")
    if theme not in (None, *THEMES) or zone not in (None, *zones()):
        raise ProblemError(422, "There is no such theme, or no such time zone.")
    answer = RedirectResponse(_landing(visit.form.get("to", "")), 303)
    keep = partial(
        answer.set_cookie,
        max_age=KEEP_S,
        path=ROOT,
        secure=visit.request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    if theme is not None:
        keep(THEME_COOKIE, theme)
    if zone is not None:
        keep(ZONE_COOKIE, zone.replace("/", "!"))  # a cookie's value has no slash
    return answer


def _landing(to: str) -> str:
    """A page of the console, never another site's."""
    is_ours = to == ROOT or to.startswith((f"{ROOT}/", f"{ROOT}?"))
    return to if is_ours and to.isprintable() and "\\" not in to else ROOT
