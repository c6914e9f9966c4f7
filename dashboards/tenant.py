"""For a tenant, and those who serve it: use, the rest of the limits, refusals, cost."""

from dashboards.board import RATE, Board, Line, Panel, Unit, Variable

_TENANT = 'tenant=~"$tenant"'


def _rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{_TENANT}{more}}}[{RATE}]))"


_PROMPT = _rate("headgate_tokens_total", "tenant", ',kind="prompt"')
_CACHED = _rate("headgate_tokens_total", "tenant", ',kind="cached"')

BOARD = Board(
    name="tenant",
    title="Headgate: a tenant",
    variables=(Variable("tenant", "headgate_requests_total", "tenant"),),
    panels=(
        Panel(
            title="Tokens charged a second",
            lines=(
                Line(
                    _rate("headgate_tokens_total", "tenant, kind", ',kind=~"prompt|completion"'),
                    "{{tenant}} {{kind}}",
                ),
            ),
        ),
        Panel(
            title="Prompt tokens from the cache",
            unit=Unit.RATIO,
            lines=(
                Line(
                    f"({_CACHED} or 0 * {_PROMPT}) / {_PROMPT}",
                    "{{tenant}}",
                ),
            ),
        ),
        Panel(
            title="Requests by model and status",
            unit=Unit.PER_SECOND,
            lines=(
                Line(
                    _rate("headgate_requests_total", "tenant, model, status"),
                    "{{tenant}} {{model}} {{status}}",
                ),
            ),
        ),
        Panel(
            title="How full the limits are",
            unit=Unit.RATIO,
            lines=(
                Line(
                    f"max by (tenant, limit) (headgate_limit_used_ratio{{{_TENANT}}})",
                    "{{tenant}} {{limit}}",
                ),
            ),
            text="Limits of whole tenants. `headgate check` prints their names.",
        ),
        Panel(
            title="Refusals by limit",
            unit=Unit.PER_SECOND,
            lines=(
                Line(
                    f"{_rate('headgate_refusals_total', 'tenant, limit')}"
                    f" or 0 * {_rate('headgate_requests_total', 'tenant')}",
                    "{{tenant}} {{limit}}",
                ),
            ),
        ),
        Panel(
            title="Refused by limits that only watch (shadow)",
            unit=Unit.PER_SECOND,
            lines=(
                Line(
                    f"{_rate('headgate_shadow_refusals_total', 'tenant, limit')}"
                    f" or 0 * {_rate('headgate_requests_total', 'tenant')}",
                    "{{tenant}} {{limit}}",
                ),
            ),
        ),
        Panel(
            title="Cost in the last 24 hours",
            is_number=True,
            lines=(
                Line(
                    f"sum by (tenant, model) (increase(headgate_cost_total{{{_TENANT}}}[24h]))",
                    "{{tenant}} {{model}}",
                ),
            ),
            text="In the currency of the policy's prices. Invoices come from the usage records.",
        ),
        Panel(
            title="Cost an hour",
            lines=(
                Line(
                    f"3600 * {_rate('headgate_cost_total', 'tenant, model')}",
                    "{{tenant}} {{model}}",
                ),
            ),
        ),
    ),
)
