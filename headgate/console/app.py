"""The routes of the console: find the reader and their right, ask the page, write it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from headgate.console.frame import Frame, error_page, with_headers
from headgate.console.routes import PAGES, Page
from headgate.console.settings import Choice, choice_of
from headgate.console.surroundings import Surroundings
from headgate.console.visit import ROOT, View, Visit
from headgate.core.policy import CompiledPolicy
from headgate.management.bodies import body_of
from headgate.management.callers import Callers
from headgate.management.calls import Desk
from headgate.management.failures import without_errors
from headgate.management.problems import ProblemError
from headgate.management.rights import Manager

MAX_FORM_BYTES = 64 * 1024
STATIC = Path(__file__).parent / "static"
_KEEP = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff"}
Shown: TypeAlias = Callable[[Request], Awaitable[Response]]


class _Static(StaticFiles):
    """Our own files, which a browser may keep for an hour."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        answer = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        answer.headers.update(_KEEP)
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _House:
    """The parts that every page works with."""

    frame: Frame
    desk: Desk
    callers: Callers
    surroundings: Surroundings


def console_routes(desk: Desk, callers: Callers, surroundings: Surroundings) -> list[BaseRoute]:
    """The pages, their files, and an error page for every other path below `/console`."""
    house = _House(frame=Frame(), desk=desk, callers=callers, surroundings=surroundings)
    pages: list[BaseRoute] = [
        Route(ROOT + page.path, _shown(page, house), methods=[page.method]) for page in PAGES
    ]
    files = Mount(f"{ROOT}/static", _Static(directory=STATIC))
    return [files, *pages, Route(ROOT + "/{path:path}", _shown(None, house))]


def _shown(page: Page | None, house: _House) -> Shown:
    name = "console" if page is None else f"{page.method} {ROOT}{page.path}"

    async def answered(request: Request) -> Response:
        async def answer() -> Response:
            manager = await house.callers.manager(request)
            visit = await _visit(request, manager, house)
            return await without_errors(
                name,
                lambda: _page(page, visit, house.frame),
                lambda error: house.frame.error(visit, error),
            )

        def refused(error: ProblemError) -> Response:
            if error.status == 401 and request.method == "GET":
                return _to_login(request)
            return error_page(error)

        shown = await without_errors(name, answer, refused)
        return with_headers(_whole_page(shown) if "hx-request" in request.headers else shown)

    return answered


def _whole_page(answer: Response) -> Response:
    """A redirect that answers a dialog leads the whole page on (htmx: HX-Redirect)."""
    if answer.status_code != 303:
        return answer
    return Response(status_code=204, headers={"hx-redirect": answer.headers["location"]})


async def _page(page: Page | None, visit: Visit, frame: Frame) -> Response:
    if page is None:
        raise ProblemError(404, "There is no such page.")
    if not page.is_open_to(visit.manager):
        raise ProblemError(403, f"This page needs the role `{page.least}` in a tenant.")
    shown = await page.show(visit)
    return frame.page(visit, shown) if isinstance(shown, View) else shown


async def _visit(request: Request, manager: Manager, house: _House) -> Visit:
    policy = house.desk.policy()
    return Visit(
        request=request,
        desk=house.desk,
        surroundings=house.surroundings,
        policy=policy,
        manager=manager,
        choice=_choice(request.cookies, policy),
        form=await _form(request) if request.method == "POST" else {},
    )


def _choice(cookies: Mapping[str, str], policy: CompiledPolicy) -> Choice:
    """The reader's choice. Without one, the zone is that of the first tenant with its own."""
    found = [str(tenant.calendar.timezone) for _, tenant in sorted(policy.tenants.items())]
    return choice_of(cookies, next((zone for zone in found if zone != "UTC"), "UTC"))


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises ProblemError for one that is too large."""
    raw = await body_of(request, MAX_FORM_BYTES, "form")
    try:
        fields = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise ProblemError(400, "The form is not UTF-8, or has too many fields.") from None
    return {name: values[0].strip() for name, values in fields.items()}


def _to_login(request: Request) -> Response:
    """To the login, and from there back to this page."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?to={quote(here, safe='')}", 303)
