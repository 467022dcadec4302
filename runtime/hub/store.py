"""Bundles of object stores (`s3://bucket/my.bundle`), through fsspec.

A bundle is fetched once per machine into a folder of the user's cache, and its files are checked by their hashes before
they get their names there. Processes that ask at the same time wait for the one that fetches.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import MANIFEST_FILE
from encort.runtime.common.errors import BundleError, BundleFileMissingError, HubError
from encort.runtime.common.extras import require
from encort.runtime.common.folders import sha256
from encort.runtime.common.output.escaping import printable
from encort.runtime.common.temporary import hold_lock, temporary_beside

CACHE_VARIABLE = "ENCORT_CACHE"
"""Environment variable with the folder of fetched bundles; without it, `encort` in the user's cache folder."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII)
_BLOCK = 2**22


def is_store_url(bundle: object) -> bool:
    """Return whether a bundle is named by a URL of an object store. A name of the hub, `hf://`, is none."""
    return isinstance(bundle, str) and _URL.match(bundle) is not None and not bundle.startswith("hf://")


def open_stored(url: str, files: Callable[[Bundle], Iterable[str]]) -> Bundle:
    """Open the bundle at a URL, of which the needed files are fetched unless this machine has them.

    A URL whose manifest has changed is another bundle: it is fetched into another folder.

    Args:
        url: Folder of the bundle, in any store that fsspec knows.
        files: Returns the names of the files that are needed, from the bundle with its manifest alone.

    Raises:
        BundleError: There is no usable bundle, or a fetched file has another hash.
        HubError: The store cannot be reached, its package is not installed, or the cache cannot be written.
        MissingExtraError: fsspec is not installed.
    """
    require(f"opening {url}", "store", "fsspec")
    url = url.rstrip("/")
    with _translated(url):
        content = _read(f"{url}/{MANIFEST_FILE}")
        folder = _cache() / hashlib.sha256(url.encode() + b"\0" + content).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock")
        lock.touch()
    with hold_lock(lock, wait=True):
        if not (folder / MANIFEST_FILE).exists():
            with _translated(url), temporary_beside(folder / MANIFEST_FILE, Path.touch) as temporary:
                temporary.write_bytes(content)
                temporary.replace(folder / MANIFEST_FILE)
        opened = replace(Bundle.open(folder), hub_name=url)
        for name in files(opened):
            _fetch(url, opened, name)
    return opened


def _fetch(url: str, bundle: Bundle, name: str) -> None:
    """Fetch a file that is not there, check its hash, and give it its name."""
    target = bundle.folder / name
    if target.exists():
        return
    with _translated(url):
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(target, Path.touch) as temporary:
            _download(f"{url}/{name}", temporary)
            digest = sha256(temporary)
            if digest != bundle.manifest.files[name].sha256:
                raise BundleError(f"{url}/{name} has another hash than its manifest says; upload the bundle again")
            temporary.replace(target)


def _read(file: str) -> bytes:
    import fsspec

    with fsspec.open(file, "rb") as opened:
        content: bytes = opened.read()
    return content


def _download(file: str, target: Path) -> None:
    import fsspec

    with fsspec.open(file, "rb") as opened, target.open("wb") as copy:
        while block := opened.read(_BLOCK):
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())


def _cache() -> Path:
    """Return the folder of fetched bundles; without a home, one for this user in the folder of temporary files."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encort" / "bundles"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"encort-{os.getuid()}" / "bundles"


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Translate the errors of fsspec and of the packages that it uses, which are of many kinds."""
    try:
        yield
    except (BundleError, HubError):
        raise
    except FileNotFoundError as error:
        reason = _short(error)
        raise BundleFileMissingError(f"{url} lacks a file of a bundle: {reason}; upload the whole folder") from error
    except Exception as error:
        raise HubError(f"{url} cannot be fetched: {_short(error)}") from error


def _short(error: Any) -> str:
    return printable(" ".join(str(error).split()))[:300] or type(error).__name__
