"""The part of a model's entry that names its pods and chooses between them."""

import re
from ipaddress import ip_address
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from headgate.policy.fields import distinct, invalid
from headgate.policy.problems import PolicyRule, shown
from headgate.policy.urls import is_host

MAX_PODS = 256
MAX_POD_SLOTS = 10_000
PODS_RULE = (
    "a list of addresses IP:PORT or NAME:PORT, where a name stands for all addresses that it"
    " resolves to"
)
POD_SLOTS_RULE = f"a whole number of requests from 1 to {MAX_POD_SLOTS}"
AFFINITY_RULE = "conversation, prompt, adapter, user or none"


def _pod_address(value: str) -> str:
    """The address as Envoy writes it. Raises PydanticCustomError for any other text."""
    host, _, port = value.rpartition(":")
    has_port = re.fullmatch("[1-9][0-9]{0,4}", port) is not None and int(port) < 2**16
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_v6 = ":" in bare
    if not has_port or not is_host(bare) or is_v6 != (bare != host):
        raise invalid(PolicyRule.BAD_POD, f"is not the address of a pod (value {shown(value)})")
    try:
        address = ip_address(bare)
    except ValueError:
        if is_v6 or bare.replace(".", "").isdigit():
            fault = f"is not the address of a pod (value {shown(value)})"
            raise invalid(PolicyRule.BAD_POD, fault) from None
        return value.lower()
    return f"[{address}]:{port}" if is_v6 else f"{address}:{port}"


PodAddress = Annotated[str, AfterValidator(_pod_address)]
Pods: TypeAlias = Annotated[
    list[PodAddress], Field(min_length=1, max_length=MAX_PODS), AfterValidator(distinct)
]
AffinityWord = Literal["conversation", "prompt", "adapter", "user", "none"]
