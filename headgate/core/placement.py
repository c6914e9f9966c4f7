"""The words for the choice of the pod of a request."""

from enum import StrEnum

PLACEMENT = "headgate.placement"
"""The dynamic metadata in which the placer leaves what a load balancer of Envoy reads."""
REST = "rest"
"""Its only key: the pods to ask after the first, in order, joined by commas."""


class Affinity(StrEnum):
    """The requests of a tenant that should meet the same pod, for its prefix cache."""

    CONVERSATION = "conversation"
    """Those of a conversation that its client names, or else of a user."""
    PROMPT = "prompt"
    """Those of a conversation that its client names, or else with the same beginning."""
    ADAPTER = "adapter"
    """Those for an adapter, or else of a user."""
    USER = "user"
    NONE = "none"
    """None: each request goes to the pod with the fewest requests."""
