"""Prompts as bytes, and their tokens, in place of a tokenizer.

One token is one started group of 4 bytes. So a prompt is a bytes string, its prefix in bytes is
its prefix in tokens, and counting is a division. Real vocabularies give 2 to 5 bytes per token.
For every text of more than one byte, tokens <= bytes / 1.8 holds here too.
"""

from collections.abc import Iterable, Sequence

BYTES_PER_TOKEN = 4
_TURN_BYTES = 16
"""The chat template's frame around each message: 4 tokens."""


def count_tokens(prompt: bytes) -> int:
    """Tokens of a rendered prompt."""
    return -(-len(prompt) // BYTES_PER_TOKEN)


def token_ids(prompt: bytes) -> list[int]:
    """The prompt's token ids, as /tokenize shows them."""
    starts = range(0, len(prompt), BYTES_PER_TOKEN)
    return [int.from_bytes(prompt[at : at + BYTES_PER_TOKEN], "big") for at in starts]


def from_text(text: str) -> bytes:
    """A plain prompt, as /v1/completions takes it."""
    return text.encode()


def from_ids(ids: Sequence[int]) -> bytes:
    """A prompt of token ids, each below 2**32."""
    return b"".join(token.to_bytes(BYTES_PER_TOKEN, "big") for token in ids)


def from_messages(
    messages: Iterable[tuple[str, str]], tools: str = "", *, add_generation_prompt: bool = True
) -> bytes:
    """The chat template: tools first, each (role, text) in its frame, then the answer's frame."""
    parts = [_padded(tools.encode())]
    for role, text in messages:
        parts += [_frame(role), _padded(text.encode())]
    if add_generation_prompt:
        parts.append(_frame("assistant"))
    return b"".join(parts)


def _frame(role: str) -> bytes:
    return b"<|" + role.encode()[: _TURN_BYTES - 4].ljust(_TURN_BYTES - 4) + b"|>"


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (-len(text) % BYTES_PER_TOKEN)
