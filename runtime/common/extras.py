"""Optional dependencies, asked for before anything else is done, and versions of what is installed."""

import contextlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from encort.runtime.common.errors import MissingExtraError


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


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed, by name."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
