"""Chooses the model of a request for `auto`, by the request's size alone. Pure.

- prompt = bytes of text / 1.8, and for each image the most that a model of `auto` holds for one
- output = the requested maximum, else 512
- size = prompt + output

The first model that takes a request of this size answers, and the last one if none does. Nothing
that was learned counts, so the same request always gets the same model. In a conversation only a
larger model may follow: what a model wrote may not fit into a smaller one.
"""

import hashlib

from extproc.asked import RefusedError, read_asked, read_whole
from extproc.estimate import START_OUTPUT_TOKENS
from extproc.field_rules import shown_fields
from extproc.types import RequestFacts, SizePin
from headgate.core.apis import Api
from headgate.core.auto import AUTO, Size, Sizes
from headgate.core.contract import RequestKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Caller, CompiledPolicy, Model, Tenant

KEPT_S = 3600
"""How long a conversation keeps its size after its last request."""
_SIZED = frozenset(
    {
        Api.CHAT,
        Api.CHAT_BATCH,
        Api.COMPLETIONS,
        Api.RESPONSES,
        Api.MESSAGES,
        Api.COUNT_TOKENS,
        Api.TOKENIZE,
    }
)
"""The APIs for which models are exchangeable. The vectors of two models cannot be compared."""
_TOOLS = ("tools", "functions")


def is_auto(facts: RequestFacts, tenant: Tenant) -> bool:
    """Whether the request names `auto`, and its tenant may."""
    return facts.values.get(RequestKey.MODEL) == AUTO and tenant.has_auto


def auto_model(api: Api, facts: RequestFacts, tenant: Tenant, policy: CompiledPolicy) -> Model:
    """The model that answers. Raises RefusedError for an API without sizes, and for bad fields."""
    if api not in _SIZED:
        raise RefusedError(_NOT_SIZED)
    models = [policy.models[size.model] for size in tenant.sizes]
    asked = read_asked(api, facts.values, max(model.context_tokens for model in models))
    output = START_OUTPUT_TOKENS if asked.max_tokens is None else asked.max_tokens
    prompt = _prompt_tokens(facts, max(model.image_tokens for model in models))
    tokens = None if prompt is None else prompt + output
    fields = shown_fields(facts.values)
    size = choose(
        tenant.sizes,
        tokens,
        has_tools=any(name in fields for name in _TOOLS),
        has_images=bool(_images(facts)),
        at_least=facts.at_least,
    )
    return policy.models[size.model]


def choose(
    sizes: Sizes,
    tokens: int | None,
    *,
    has_tools: bool = False,
    has_images: bool = False,
    at_least: str | None = None,
) -> Size:
    """The first size that takes a request of `tokens`, from the model `at_least` on.

    The last one if there is none, and if `tokens` is None: not known. A model that is no size any
    more bounds nothing.
    """
    names = [size.model for size in sizes]
    first = names.index(at_least) if at_least in names else 0
    for size in sizes[first:]:
        fits = tokens is not None and tokens <= size.up_to
        if fits and size.tools >= has_tools and size.images >= has_images:
            return size
    return sizes[-1]


def size_pin(model: Model, facts: RequestFacts, caller: Caller, tenant: Tenant) -> SizePin | None:
    """The size to remember for the conversation; None without a `prompt_cache_key` that names it.

    All other requests of a user are not one conversation here: one large request would make all
    that follow expensive.
    """
    name = facts.values.get(RequestKey.PROMPT_CACHE_KEY)
    if not isinstance(name, str) or not name:
        return None
    key = hashlib.sha256(f"{AUTO}\0{caller.tenant}\0{name}".encode()).hexdigest()
    return SizePin(key, model.name, tuple(size.model for size in tenant.sizes), KEPT_S)


def _prompt_tokens(facts: RequestFacts, image_tokens: int) -> int | None:
    """The prompt by its bytes, rounded up; None if its size is not known."""
    text_bytes = read_whole(facts.values.get(RequestKey.TEXT_BYTES))
    text_bytes = facts.size_bytes if text_bytes is None else text_bytes
    return None if text_bytes is None else -(-text_bytes * 5 // 9) + _images(facts) * image_tokens


def _images(facts: RequestFacts) -> int:
    return read_whole(facts.values.get(RequestKey.IMAGES)) or 0


_NOT_SIZED = ApiError(
    Refusal.BAD_REQUEST,
    f"The model '{AUTO}' does not answer this API: name a model that GET /v1/models lists.",
    RequestKey.MODEL,
)
