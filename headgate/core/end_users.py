"""The headers by which front ends name their end users: a closed list, as Envoy's filters hold it.

They count only from a key that the policy marks with `acts_for`. No other request keeps them.
"""

OPEN_WEBUI_TOKEN = "x-openwebui-user-jwt"  # noqa: S105 - the name of a header
"""The token that open-webui signs with a shared secret."""
USER_HEADERS = ("x-openwebui-user-id", OPEN_WEBUI_TOKEN, "x-end-user-id")
"""An id of the user: open-webui's own headers, and one for front ends that let you choose."""
GROUP_HEADERS = ("x-openwebui-user-groups", "x-end-user-groups")
"""The groups of the user, separated by commas."""
END_USER_HEADERS = (*USER_HEADERS, *GROUP_HEADERS)
PERSONAL_HEADERS = tuple(f"x-openwebui-user-{part}" for part in ("name", "email", "role"))
"""Further headers of open-webui. They decide nothing, and vLLM has no use for them."""
ORGANIZATION = "openai-organization"
"""The tenant that a person of several tenants chooses. The official clients have an option for it
(`organization`)."""
