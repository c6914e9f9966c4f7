"""The model name `auto`: it stands for several models, of which a request's size chooses one."""

from dataclasses import dataclass

AUTO = "auto"
MODEL_HEADER = "x-headgate-model"
"""The header of an answer that names the model which `auto` has chosen. A request to vLLM always
has it (`Header.MODEL`)."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model that `auto` may choose, and the requests that it takes.

    `up_to` is the largest request in tokens, prompt and output together. It is at most the context
    of the model. Without `tools` or `images` it takes no request with tools, or with images.
    """

    model: str
    up_to: int
    tools: bool = True
    images: bool = True


Sizes = tuple[Size, ...]
"""From the smallest to the largest: what one takes, the next takes too, but for its `up_to`."""
