"""Whether the packages of the hooks are Headgate's own.

Their names are Envoy's words, and other distributions have packages of the same names: PyPI's
`ratelimit` is one. Installed beside Headgate it overwrites a file of ours, and pip says nothing.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import headgate
from headgate.core.errors import OperatorError

HOOK_PACKAGES = ("accesslog", "extauthz", "extproc", "ratelimit")
_MARK = "PART_OF"
"""The name that each of them sets to `headgate` in its `__init__.py`."""


def refuse_foreign_packages() -> None:
    """Raises OperatorError for the first hook package that is not ours.

    Call it before any import of these packages, as that import could fail.
    """
    folder = Path(headgate.__file__).parent.parent
    for name in HOOK_PACKAGES:
        file = _file_of(name)
        if file is None or file.parent != folder / name or not _is_marked(name):
            raise OperatorError(
                f"the package `{name}` is {file or 'missing'}, not Headgate's: a package of this"
                " name, as PyPI has one, overwrites or shadows it;"
                " install Headgate into an environment of its own"
            )


def _file_of(name: str) -> Path | None:
    """The file that an import of the package would run, or the folder of one without a file."""
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.origin is not None:
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]) if folders else None


def _is_marked(name: str) -> bool:
    try:
        return getattr(import_module(name), _MARK, None) == headgate.__name__
    except Exception:  # a package of others may raise anything
        return False
