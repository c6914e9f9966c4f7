"""The page of login and log-out. Everything that comes from outside is escaped."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from urllib.parse import quote, urlencode

from starlette.responses import Response

from headgate.management.problems import ProblemError

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem}"
    "a,button{display:inline-block;margin:.25rem 0;font:inherit}"
    "label,input{display:block;width:100%;box-sizing:border-box;font:inherit}"
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
        f" style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'"
    ),
    "x-content-type-options": "nosniff",
    # Without a referrer browsers would write `Origin: null` into our own forms.
    "referrer-policy": "same-origin",
}


def login_page(issuers: Sequence[str], landing: str, *, has_token: bool) -> Response:
    """The ways to log in: by one of these issuers, or by the operator token."""
    query = urlencode({"to": landing})
    parts = [
        f'<p><a href="/login/{quote(name, safe="")}?{escape(query)}">'
        f"Log in with {escape(name)}</a></p>"
        for name in issuers
    ]
    if has_token:
        parts.append(
            f'<form method="post" action="/login?{escape(query)}">'
            '<label for="token">Operator token</label>'
            '<input id="token" name="token" type="password" autocomplete="off" required>'
            "<button>Log in</button></form>"
        )
    if not parts:
        parts.append("<p>The policy names no issuer with <code>browser_login</code>.</p>")
    return _page("Log in", "".join(parts))


def logged_in_page(name: str) -> Response:
    """The person who is logged in, and the way out."""
    form = '<form method="post" action="/logout"><button>Log out</button></form>'
    return _page("Logged in", f"<p>You are {escape(name)}.</p>{form}")


def problem_page(error: ProblemError) -> Response:
    """A refusal for a person to read."""
    again = '<p><a href="/login">Log in</a></p>'
    page = _page("This did not work", f"<p>{escape(error.detail)}</p>{again}")
    page.status_code = error.status
    return page


def _page(title: str, body: str) -> Response:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} -'
        f" Headgate</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}"
        "</body></html>"
    )
    return Response(text, headers=HEADERS, media_type="text/html; charset=utf-8")
