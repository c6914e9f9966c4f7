"""The API paths that pass the door, and what is known of each.

Everything that is not listed is refused with 404: vLLM serves paths that need no
key or ignore the model (`/invocations`, `/adapters`, `/pooling`, `/classify`), so
the door works by an allow-list.
"""

from dataclasses import dataclass
from enum import StrEnum


class Api(StrEnum):
    """The APIs of vLLM that pass the door, and the two lists that Headgate answers itself."""

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


class ErrorShape(StrEnum):
    """Whose error object the client of a path expects."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the door: which API it is and the methods it takes."""

    api: Api
    methods: frozenset[str]


_POST = frozenset({"POST"})
_GET = frozenset({"GET"})

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
}
_MODEL_PREFIX = "/v1/models/"

FORM_APIS = frozenset({Api.TRANSCRIPTIONS, Api.TRANSLATIONS})
"""The APIs whose requests are multipart forms with a file."""
WITHOUT_USAGE = frozenset({Api.COUNT_TOKENS, Api.TOKENIZE}) | FORM_APIS
"""The APIs whose answers do not say what they used, or, of audio, only in seconds and not always:
shut, unless the policy names their price."""
ANTHROPIC_APIS = frozenset({Api.MESSAGES, Api.COUNT_TOKENS})


def endpoint_of(path: str) -> Endpoint | None:
    """The endpoint of a request path (its query is ignored), None where the door is shut."""
    bare = path.partition("?")[0]
    if bare.startswith(_MODEL_PREFIX) and len(bare) > len(_MODEL_PREFIX):
        return ENDPOINTS["/v1/models"]
    return ENDPOINTS.get(bare)


def error_shape_of(path: str) -> ErrorShape:
    """The error object that a client of this path reads: Anthropic's below /v1/messages."""
    bare = path.partition("?")[0]
    if bare == "/v1/messages" or bare.startswith("/v1/messages/"):
        return ErrorShape.ANTHROPIC
    return ErrorShape.OPENAI
