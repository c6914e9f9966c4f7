"""Recognizes Kubernetes manifests: a ConfigMap holds a configuration file, but it is none."""

import re

from headgate.policy.problems import Problem, shown
from headgate.rls_config.rules import RlsConfigRule

_KEY = r"""(?:^|(?:^|[{,])\s*")%s"?\s*:"""
"""At the start of a line, or anywhere in JSON."""
_API_VERSION = re.compile(_KEY % "apiVersion", re.MULTILINE)
_KIND = re.compile(_KEY % "kind" + r"""\s*["']?(\w+)""", re.MULTILINE)


def manifest_problem(data: bytes) -> Problem | None:
    """The problem of a file that is a manifest; None for any other file.

    It is found by its text, as a manifest may hold several documents or a template.
    """
    text = data.decode(errors="replace")
    kind = _KIND.search(text)
    if kind is None or _API_VERSION.search(text) is None:
        return None
    advice = "write the text below its `data` into a file of its own, or mount the ConfigMap"
    if kind[1] != "ConfigMap":
        advice = "use a file that begins with `domain`"
    return Problem(
        rule=RlsConfigRule.MANIFEST,
        fault=f"the file is a Kubernetes manifest (kind {shown(kind[1])})",
        advice=advice,
        line=text.count("\n", 0, kind.start(1)) + 1,
    )
