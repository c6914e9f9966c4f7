"""The rewrite of a body as edits: for the lean path, on which no body leaves the proxy.

The request reader names the places in the body (`PlaceKey.PLACES`), and a script in the proxy makes
the edits. `extproc.splice` and `extproc.form` make the same bodies, but for the form of their JSON.
"""

from collections.abc import Iterator, Mapping

import msgspec

from extproc.form import form_edits
from extproc.splice import SpliceError, bad_options, cache_salt, own_salt
from extproc.types import Admit, FormRewrite, Refuse, RequestFacts, Rewrite, Value
from headgate.core.apis import door_of
from headgate.core.contract import CACHE_SALT, RequestKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.lean_contract import PlaceKey

Edit = tuple[int, int, str]
"""Where a change begins and ends, in bytes from 0, and the text to put there."""

_OPEN, _MODEL = "open", "model"
_OPTIONS, _EMPTY_OPTIONS, _NULL_OPTIONS = "options", "options_empty", "options_null"
_OTHER_OPTIONS = "options_other"
_FORCED = ("include_usage", "continuous_usage_stats")
_MANY = "many"
_TOO_MANY = "The body repeats fields that only the platform may set."
_NO_PLACES = "The body was not read for a rewrite."


class Edited(msgspec.Struct, frozen=True, gc=False):
    """An admitted request, with the edits that its body needs: in order, none within another."""

    admit: Admit
    edits: tuple[Edit, ...]


def edited(admit: Admit, facts: RequestFacts) -> Edited | Refuse:
    """The admission with its rewrite as edits; a refusal if the body cannot be rewritten."""
    if admit.rewrite is None:
        return Edited(admit, ())
    try:
        return Edited(admit, edits_of(admit.rewrite, facts.values))
    except SpliceError as error:
        refusal = ApiError(Refusal.BAD_REQUEST, str(error), error.param)
        return Refuse(refusal, door_of(facts.path).shape)


def edits_of(rewrite: Rewrite | FormRewrite, values: Mapping[str, Value]) -> tuple[Edit, ...]:
    """The changes to a body whose fields are `values`. Raises SpliceError as the splice does."""
    if isinstance(rewrite, FormRewrite):
        return _form_edits(rewrite, values)
    places = _read_places(values.get(PlaceKey.PLACES))
    at = dict(places)
    added: dict[str, str] = {}
    edits = list(_cuts(places, rewrite.drop, at[_OPEN][0]))
    for name, text in _members(rewrite, values).items():
        if name in at:
            edits.append((at[name][0], at[name][1], text))
        else:
            added[name] = text
    if rewrite.force_usage:
        edits += _options(at, added)
    if added:
        behind_brace = at[_OPEN][0]
        edits.append((behind_brace, behind_brace, _joined(added) + ","))
    return tuple(sorted(edits, key=lambda edit: edit[:2]))


def _members(rewrite: Rewrite, values: Mapping[str, Value]) -> dict[str, str]:
    """The new values of whole members, as JSON."""
    members = {}
    if rewrite.model is not None:
        members[_MODEL] = _json(rewrite.model)
    if rewrite.salt_tenant is not None:
        own = own_salt(str(values.get(PlaceKey.SALT) or "null"))
        members[CACHE_SALT] = _json(cache_salt(rewrite.salt_tenant, own))
    return members


def _options(at: Mapping[str, tuple[int, ...]], added: dict[str, str]) -> Iterator[Edit]:
    """Forces usage in the options that the body has; without any, puts them into `added`."""
    forced = dict.fromkeys(_FORCED, "true")
    if _OTHER_OPTIONS in at:
        raise bad_options()
    if _OPTIONS in at:
        missing = {name: text for name, text in forced.items() if name not in at}
        yield from ((at[name][0], at[name][1], "true") for name in _FORCED if name in at)
        if missing:
            behind_brace = at[_OPTIONS][0] + 1
            yield behind_brace, behind_brace, _joined(missing) + ","
        return
    replaced = at.get(_EMPTY_OPTIONS) or at.get(_NULL_OPTIONS)
    if replaced is None:
        added["stream_options"] = f"{{{_joined(forced)}}}"
    else:
        yield replaced[0], replaced[1], f"{{{_joined(forced)}}}"


def _cuts(
    places: list[tuple[str, tuple[int, ...]]], drop: tuple[str, ...], behind_brace: int
) -> Iterator[Edit]:
    """Takes out members, each with the comma before it; the first ones with the comma behind."""
    front_end, cut_end = behind_brace, behind_brace
    for name, numbers in places:
        if name not in drop:
            continue
        begin, end, following = numbers
        if begin != front_end:
            yield begin, end, ""
            continue
        yield cut_end, following, ""
        front_end, cut_end = end, following


def _read_places(value: Value) -> list[tuple[str, tuple[int, ...]]]:
    """The places in the body's order, the numbers of each by its name."""
    if not isinstance(value, str) or not value:
        raise SpliceError(_NO_PLACES)
    if value == _MANY:
        raise SpliceError(_TOO_MANY)
    places = []
    for item in value.split(","):
        name, _, numbers = item.partition("=")
        places.append((name, tuple(int(number) for number in numbers.split(":"))))
    return places


def _form_edits(rewrite: FormRewrite, values: Mapping[str, Value]) -> tuple[Edit, ...]:
    ends = {
        values.get(begin): values.get(end)
        for begin, end in (
            (RequestKey.INCLUDE_USAGE_AT, PlaceKey.INCLUDE_USAGE_END),
            (RequestKey.CONTINUOUS_USAGE_AT, PlaceKey.CONTINUOUS_USAGE_END),
        )
    }
    boundary = values.get(PlaceKey.BOUNDARY)
    if not isinstance(boundary, str) or not boundary:
        raise SpliceError(_NO_PLACES)

    def end_of(at: int) -> int:
        end = ends.get(at)
        if not isinstance(end, int | float):
            raise SpliceError(_NO_PLACES)
        return int(end)

    edits = form_edits(rewrite, b"--" + boundary.encode(), end_of)
    return tuple((begin, end, text.decode()) for begin, end, text in edits)


def _joined(members: Mapping[str, str]) -> str:
    return ",".join(f'"{name}":{text}' for name, text in members.items())


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
