"""The frame of every page: its navigation, its templates, and the headers that guard it."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import escape
from http import HTTPStatus

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

import headgate
from headgate.console import words
from headgate.console.routes import PAGES
from headgate.console.settings import THEMES
from headgate.console.visit import ROOT, View, Visit, address
from headgate.core.issuers import Role
from headgate.management.problems import ProblemError
from headgate.management.rights import OPERATOR_TOKEN, Manager

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self';"
        " font-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
"""Only our own files of scripts run, and none within a page. Forms go to us; nobody frames us."""
_FILTERS = (
    *("count", "grouped", "money", "cost", "cents", "percent", "signed", "span"),
    *("milliseconds", "as_milliseconds", "as_seconds"),
    *("month_name", "month_short", "result", "icon", "amount"),
)
"""The functions of `words` that templates use by their names."""
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Link:
    title: str
    href: str
    is_here: bool


class Frame:
    """Writes pages. Every value that a template shows is escaped."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("headgate.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update({name: getattr(words, name) for name in _FILTERS})
        self._templates.globals.update(address=address, root=ROOT, version=headgate.__version__)

    def page(self, visit: Visit, view: View) -> Response:
        """A page in the reader's theme and time zone."""
        zone, path = visit.choice.zone, visit.request.url.path
        text = self._templates.get_template(view.template).render(
            **view.values,
            links=_links(visit.manager, path),
            reader=_reader(visit.manager),
            theme=visit.choice.theme,
            themes=THEMES,
            zone=zone.key,
            has_zone=visit.choice.has_zone,
            here=path + (f"?{visit.request.url.query}" if visit.request.url.query else ""),
            currency=visit.policy.currency or "",
            money_word=f" {visit.policy.currency}" if visit.policy.currency else "",
            now=visit.now,
            day=partial(words.day, zone=zone),
            moment=partial(words.moment, zone=zone),
            precise=partial(words.precise, zone=zone),
            iso=_iso,
        )
        return Response(text, view.status, media_type=_HTML)

    def error(self, visit: Visit, error: ProblemError) -> Response:
        """An error inside the frame, for a reader who is logged in."""
        title = HTTPStatus(error.status).phrase
        values = {"title": title, "status": error.status, "detail": error.detail}
        return self.page(visit, View("error.html", values, error.status))


def error_page(error: ProblemError) -> Response:
    """An error for a reader who is not known."""
    title, detail = HTTPStatus(error.status).phrase, escape(error.detail)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · Headgate'
        '</title><meta name="viewport" content="width=device-width">'
        f'<link rel="stylesheet" href="{ROOT}/static/console.css"></head><body><main>'
        f'<div id="sheet"><h1>{title}</h1><p class="lede">{detail}</p>'
        '<p class="note"><a href="/login">Log in</a></p></div></main></body></html>'
    )
    return Response(text, error.status, media_type=_HTML)


def with_headers(answer: Response) -> Response:
    """The answer with the headers that guard every page."""
    answer.headers.update(HEADERS)
    return answer


def _links(manager: Manager, path: str) -> list[_Link]:
    """The navigation: the pages that the reader may open."""
    links = []
    for page in PAGES:
        if page.title and page.is_open_to(manager):
            href = ROOT + page.path
            is_here = path == href or (page.path != "" and path.startswith(f"{href}/"))
            links.append(_Link(page.title, href, is_here))
    return links


def _reader(manager: Manager) -> str:
    """The reader's strongest role and name."""
    if manager.name == OPERATOR_TOKEN:
        return "Operator, by token"
    roles = [Role.OPERATOR] if manager.is_operator else list(manager.tenants.values())
    role = max(roles, key=list(Role).index, default="no role")
    return f"{role.capitalize()} · {manager.display_name or manager.name}"


def _iso(time: datetime | None) -> str:
    return "" if time is None else time.isoformat()
