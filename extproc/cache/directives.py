"""The `cache-control` of a request: its bounds on the cache (RFC 9111, 5.2.1). Pure."""

from dataclasses import dataclass

_MOST_S = 2**31  # RFC 9111, 1.2.2: a larger number of seconds counts as this one


@dataclass(frozen=True, slots=True)
class Directives:
    """With `keeps_out` the request has nothing to do with the cache.

    Answers that are `max_age_s` old or younger may come from it; None for any age. 0 is also for
    `no-cache`: the request goes to the model, and its answer is kept.
    """

    keeps_out: bool = False
    max_age_s: int | None = None


NONE = Directives()


def directives_of(header: str) -> Directives:
    """The directives in a `cache-control` header. Unknown ones are ignored.

    Of several bounds the smallest counts. A `max-age` that is no number counts as 0, so that no
    answer is older than the client wants.
    """
    if not header:
        return NONE
    keeps_out, ages = False, []
    for part in header.lower().split(","):
        name, _, value = part.strip().partition("=")
        match name.strip():
            case "no-store":
                keeps_out = True
            case "no-cache":
                ages.append(0)
            case "max-age":
                ages.append(_seconds(value.strip().strip('"')))
            case _:
                pass
    return Directives(keeps_out, min(ages, default=None))


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        return 0
    return min(int(text[:11]), _MOST_S)
