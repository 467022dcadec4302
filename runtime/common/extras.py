"""Checks for optional packages, and versions of installed packages."""

import contextlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from encort.runtime.common.errors import MissingExtraError


def require(what: str, extra: str, *modules: str) -> None:
    """Check that the modules of an extra are installed, before any work is done.

    Args:
        what: Name of the feature that needs them, for the message.
        extra: Name of the extra of encort.
        modules: Modules that the extra installs.

    Raises:
        MissingExtraError: A module is not installed; the message gives the pip command.
    """
    if not all(map(is_installed, modules)):
        raise MissingExtraError(what, extra=extra)


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it; its parent packages are imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages by name, without packages that are not installed."""
    versions = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
