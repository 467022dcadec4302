"""Optional dependencies, asked for before anything else is done."""

from importlib.util import find_spec

from encort.runtime.errors import MissingExtraError


def require(what: str, extra: str, *modules: str) -> None:
    """Make sure that the modules of an extra are installed.

    Raises:
        MissingExtraError: One is not; the message gives the pip command.
    """
    if any(find_spec(module) is None for module in modules):
        raise MissingExtraError(what, extra=extra)
