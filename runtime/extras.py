"""Optional dependencies, asked for before anything else is done."""

from importlib.util import find_spec

from encort.runtime.errors import MissingExtraError


def require(what: str, extra: str, *modules: str) -> None:
    """Make sure that the modules of an extra are installed.

    Raises:
        MissingExtraError: One is not; the message gives the pip command.
    """
    if not all(map(_is_installed, modules)):
        raise MissingExtraError(what, extra=extra)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False
