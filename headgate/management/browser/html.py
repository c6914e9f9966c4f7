"""The page of login and log-out. Everything that comes from outside is escaped."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from urllib.parse import quote, urlencode

from starlette.responses import Response

from headgate.management.problems import ProblemError

_STYLE = (
    ":root{color-scheme:light dark;--bg:light-dark(#fff,#0f1619);--ink:light-dark(#12222b,#e3ebee);"
    "--ink-2:light-dark(#4a5d68,#a3b4bd);--edge:light-dark(#12222b,#b9c7ce);"
    "--rule:light-dark(#7d909a,#647985);--link:light-dark(#08597a,#74c3e0)}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:24rem;padding:16vh 1.25rem 2rem;background:var(--bg);"
    'color:var(--ink);font:400 .875rem/1.45 "Source Sans 3",system-ui,"Liberation Sans",sans-serif}'
    ".brand{display:flex;gap:8px;align-items:center;margin:0 0 1.25rem;font-weight:600}"
    "h1{margin:0 0 .75rem;padding-top:.75rem;border-top:1px solid var(--edge);font-size:1.5rem;"
    "line-height:1.2;font-weight:600}"
    "a{color:var(--link)}:focus-visible{outline:2px solid var(--link);outline-offset:2px}"
    "label{display:block;margin-top:1rem}"
    "input{display:block;width:100%;min-height:36px;margin-top:2px;padding:3px 8px;"
    "border:1px solid var(--rule);border-radius:2px;background:var(--bg);color:inherit;"
    "font:inherit}"
    "button,.way{display:block;width:100%;min-height:36px;margin-top:.75rem;padding:6px 12px;"
    "border:1px solid var(--ink);border-radius:2px;background:var(--ink);color:var(--bg);"
    "font:inherit;font-weight:600;text-align:center;text-decoration:none;cursor:pointer}"
    "button:hover,.way:hover{background:var(--link);border-color:var(--link)}"
    "p{color:var(--ink-2)}"
)
_MARK = (
    '<svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true"><path fill="currentColor"'
    ' d="M2 2h16v3h-1v13h-4v-6a3 3 0 0 0-6 0v6H3V5H2V2Z"/></svg>'
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
        f'<p><a class="way" href="/login/{quote(name, safe="")}?{escape(query)}">'
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
        ' Headgate</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{_STYLE}</style></head><body><main><div class="brand">{_MARK}Headgate</div>'
        f"<h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return Response(text, headers=HEADERS, media_type="text/html; charset=utf-8")
