"""The numbers as lines of text."""

from collections.abc import Iterator, Sequence

from headgate.top.view import View

ROWS = 12
"""The most rows of one table: those with the most traffic, or the fullest limits."""
_ABSENT = "-"


def screen(view: View, head: str) -> str:
    """The whole screen; `head` is its first words."""
    store = "store available" if view.store_available else "STORE AWAY"
    requests = sum(row.requests for row in view.models)
    tokens = sum(row.tokens for row in view.tenants)
    refusals = sum(row.refusals for row in view.tenants)
    lines = [
        f"{head}  {store}",
        f"{requests:.1f} requests/s  {refusals:.1f} refused by limits/s  {tokens:.0f} tokens/s",
        *_models(view),
        *_tenants(view),
        *_limits(view),
        *_pods(view),
    ]
    return "\n".join(lines)


def _models(view: View) -> Iterator[str]:
    rows = sorted(view.models, key=lambda row: -row.requests)[:ROWS]
    yield from _table(
        ("MODEL", "VERSION", "REQUESTS/S", "5XX/S", "TTFT P50", "TTFT P95"),
        [
            (
                row.model,
                row.version,
                f"{row.requests:.1f}",
                f"{row.errors:.1f}",
                _seconds(row.ttft_p50_s),
                _seconds(row.ttft_p95_s),
            )
            for row in rows
        ],
    )


def _tenants(view: View) -> Iterator[str]:
    rows = sorted(view.tenants, key=lambda row: -row.requests)[:ROWS]
    yield from _table(
        ("TENANT", "REQUESTS/S", "REFUSED/S", "TOKENS/S"),
        [
            (row.tenant, f"{row.requests:.1f}", f"{row.refusals:.1f}", f"{row.tokens:.0f}")
            for row in rows
        ],
    )


def _limits(view: View) -> Iterator[str]:
    yield from _table(
        ("LIMIT OF", "LIMIT", "USED", "REFUSED/S"),
        [
            (row.tenant, row.limit, f"{row.used:.0%}", f"{row.refusals:.1f}")
            for row in view.limits[:ROWS]
        ],
    )


def _pods(view: View) -> Iterator[str]:
    yield from _table(
        ("VLLM", "RUNNING", "WAITING", "KV CACHE"),
        [
            (row.name, _whole(row.running), _whole(row.waiting), _part(row.kv))
            for row in view.pods[:ROWS]
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """An empty line and the table; nothing without rows. Numbers are on the right."""
    if not rows:
        return
    yield ""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    numbers = len(head) - sum(_is_name(word) for word in head)
    names = len(head) - numbers
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if at < names else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _is_name(head: str) -> bool:
    return head in {"MODEL", "VERSION", "TENANT", "LIMIT OF", "LIMIT", "VLLM"}


def _seconds(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f} s"


def _whole(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.0f}"


def _part(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.0%}"
