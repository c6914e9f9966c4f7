"""The API paths that Headgate serves, and the properties of each.

This is an allow-list, and every other path is refused with 404. The reason is vLLM: some of its
paths need no key or ignore the model (`/invocations`, `/adapters`, `/pooling`, `/classify`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Api(StrEnum):
    """The APIs of vLLM that Headgate serves, and those that it answers itself: the last four."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    CHAT_BATCH = "chat_batch"
    SCORE = "score"
    RERANK = "rerank"
    COUNT_TOKENS = "count_tokens"
    TOKENIZE = "tokenize"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    MODELS = "models"
    LIMITS = "limits"
    USAGE = "usage"
    OWN_KEYS = "own_keys"


class ErrorShape(StrEnum):
    """The error object that the client of a path expects."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path that Headgate serves: its API, and the methods that it accepts."""

    api: Api
    methods: frozenset[str]


_POST = frozenset({"POST"})
_GET = frozenset({"GET", "HEAD"})
KEYS_PATH = "/v1/headgate/keys"
"""Where users make, list and end their own keys; below it, each key by its id."""

ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(Api.CHAT, _POST),
    "/v1/completions": Endpoint(Api.COMPLETIONS, _POST),
    "/v1/responses": Endpoint(Api.RESPONSES, _POST),
    "/v1/messages": Endpoint(Api.MESSAGES, _POST),
    "/v1/embeddings": Endpoint(Api.EMBEDDINGS, _POST),
    "/v1/chat/completions/batch": Endpoint(Api.CHAT_BATCH, _POST),
    "/v1/score": Endpoint(Api.SCORE, _POST),
    "/v1/rerank": Endpoint(Api.RERANK, _POST),
    "/v2/rerank": Endpoint(Api.RERANK, _POST),
    "/v1/messages/count_tokens": Endpoint(Api.COUNT_TOKENS, _POST),
    "/tokenize": Endpoint(Api.TOKENIZE, _POST),
    "/v1/audio/transcriptions": Endpoint(Api.TRANSCRIPTIONS, _POST),
    "/v1/audio/translations": Endpoint(Api.TRANSLATIONS, _POST),
    "/v1/models": Endpoint(Api.MODELS, _GET),
    "/v1/headgate/limits": Endpoint(Api.LIMITS, _GET),
    "/v1/headgate/usage": Endpoint(Api.USAGE, _GET),
    KEYS_PATH: Endpoint(Api.OWN_KEYS, _GET | _POST),
}
_MODEL_PREFIX = "/v1/models/"
HEALTH = "/health"
"""The path that load balancers ask, as of vLLM. ext_authz answers it; no request passes."""

FORM_APIS = frozenset({Api.TRANSCRIPTIONS, Api.TRANSLATIONS})
"""The APIs whose requests are multipart forms with a file."""
WITHOUT_USAGE = frozenset({Api.COUNT_TOKENS, Api.TOKENIZE}) | FORM_APIS
"""The APIs whose answers carry no token usage; audio answers may carry seconds. They are refused
unless the policy sets their price."""
WITH_PRIORITY = frozenset({Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.MESSAGES})
"""The APIs for which vLLM reads the priority of a request from a header."""
ANTHROPIC_APIS = frozenset({Api.MESSAGES, Api.COUNT_TOKENS})


@dataclass(frozen=True, slots=True)
class Door:
    """The entry for a request path: its endpoint, None if the path is not served, and the shape of
    its errors."""

    endpoint: Endpoint | None
    shape: ErrorShape


def door_of(path: str) -> Door:
    """The endpoint and the error shape of a request path, whose query is ignored.

    All paths below /v1/messages have Anthropic's errors, served or not. A path is compared as it
    came: an escaped slash is no slash, and a final slash counts. Only the model list, which is
    answered here, has both forms; the rest of its paths is a model's id.
    """
    bare = path.partition("?")[0]
    door = _DOORS.get(bare)
    if door is not None:
        return door
    if bare.startswith(_MODEL_PREFIX):
        return _DOORS["/v1/models"]
    if bare.startswith(f"{KEYS_PATH}/"):
        return _ONE_KEY
    return _CLOSED[_shape_of(bare)]


def without_final_slash(path: str) -> str | None:
    """The path that is served, for one that is not because of its final slashes; else None."""
    bare = path.partition("?")[0].rstrip("/")
    return bare if path.partition("?")[0] != bare and bare in ENDPOINTS else None


def _shape_of(bare: str) -> ErrorShape:
    if bare == _MESSAGES or bare.startswith(f"{_MESSAGES}/"):
        return ErrorShape.ANTHROPIC
    return ErrorShape.OPENAI


_MESSAGES = "/v1/messages"
_DOORS: Mapping[str, Door] = MappingProxyType(
    {path: Door(endpoint, _shape_of(path)) for path, endpoint in ENDPOINTS.items()}
)
_ONE_KEY = Door(Endpoint(Api.OWN_KEYS, frozenset({"DELETE"})), ErrorShape.OPENAI)
_CLOSED = {shape: Door(None, shape) for shape in ErrorShape}
