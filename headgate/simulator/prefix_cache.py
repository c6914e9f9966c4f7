"""The prefix cache: which blocks of a prompt were seen before."""

from collections import OrderedDict
from hashlib import blake2b

from headgate.simulator.prompts import BYTES_PER_TOKEN, count_tokens

BLOCK_TOKENS = 16
"""vLLM's KV block on a GPU; cached counts are multiples of it."""
_BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN


class PrefixCache:
    """Remembers the last `capacity_blocks` blocks, by all the prompt before them.

    Another adapter or another cache_salt shares nothing.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity_blocks = capacity_blocks
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def cached_tokens(self, model: str, salt: str, prompt: bytes) -> int:
        """Tokens of the prompt that were cached; all its blocks are cached from now on.

        The last token is always computed anew, as its output is needed.
        """
        chain = blake2b(repr((model, salt)).encode(), digest_size=16)
        reusable = (count_tokens(prompt) - 1) // BLOCK_TOKENS
        hits = 0
        for number in range(len(prompt) // _BLOCK_BYTES):
            chain.update(prompt[number * _BLOCK_BYTES : (number + 1) * _BLOCK_BYTES])
            block = chain.digest()
            if block in self._blocks and hits == number < reusable:
                hits += 1
            self._remember(block)
        return hits * BLOCK_TOKENS

    def _remember(self, block: bytes) -> None:
        self._blocks[block] = None
        self._blocks.move_to_end(block)
        if len(self._blocks) > self._capacity_blocks:
            self._blocks.popitem(last=False)
