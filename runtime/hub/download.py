"""Open a bundle: a folder, or a bundle of the hub or of an object store, whose files are downloaded first.

huggingface_hub keeps downloaded files in its cache as links to blobs. A bundle has no links that lead out of its
folder, and ONNX Runtime reads no weights through them. So the files of a bundle get a folder of their own in the cache
of the repository. They are hard links to the blobs, which take no space.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import MANIFEST_FILE
from encort.runtime.common.errors import BundleFileMissingError
from encort.runtime.common.temporary import temporary_beside
from encort.runtime.hub.client import is_reachable, require_hub, translated
from encort.runtime.hub.names import HubName, is_hub_name
from encort.runtime.hub.store import is_store_url, open_stored

_FOLDER = "encort"
"""Name of the folder of bundles, in the cache of a repository."""
_NO_HARD_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
"""The blob is on another disk, belongs to another user, or the disk has no hard links."""

ChooseFiles = Callable[[Bundle], Iterable[str]]


def all_files(bundle: Bundle) -> Iterable[str]:
    """Return the names of all files in the manifest."""
    return bundle.manifest.files


def open_bundle(bundle: str | Path, *, files: ChooseFiles = all_files) -> Bundle:
    """Open the bundle in a folder, in an object store (`s3://bucket/my.bundle`), or `hf://org/name@revision`.

    A folder is opened without the network. From the hub, the manifest is downloaded first, and then the files that are
    needed. They stay in the cache of huggingface_hub. Files of a repository that are not in the manifest are not read.

    Args:
        bundle: Folder, URL or name.
        files: Returns the names of the files that are needed, from the bundle with its manifest alone.

    Raises:
        BundleError: The folder or the repository has no usable bundle.
        HubError: The hub or the store cannot be reached, or has no such repository or revision.
        InputError: The name is no name of a repository.
        MissingExtraError: huggingface_hub or fsspec is not installed.
    """
    if isinstance(bundle, str) and is_store_url(bundle):
        return open_stored(bundle, files)
    if not (isinstance(bundle, str) and is_hub_name(bundle)):
        return Bundle.open(bundle)
    require_hub(f"opening {bundle}")
    name = HubName.parse(bundle)
    manifest = _download(name, MANIFEST_FILE)
    # The hub's cache names the folder of a snapshot after its commit, so that all files are of one commit.
    commit = manifest.parent.name
    folder = manifest.parents[2] / _FOLDER / commit
    with translated(name):
        _link(manifest, folder / MANIFEST_FILE)
    # Opening refuses names in the manifest that lead out of the folder.
    opened = replace(Bundle.open(folder), hub_name=str(name.at(commit)))
    for file in files(opened):
        path = _download(name.at(commit), file)
        with translated(name):
            _link(path, folder / file)
    return opened


def _download(name: HubName, file: str) -> Path:
    """Return the file in the cache of huggingface_hub. Processes that ask at the same time download it once."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with translated(name):
        is_cached = isinstance(try_to_load_from_cache(name.repo, file, revision=name.revision), str)
        # For a file that is not cached, hf_hub_download would ask an unreachable hub six times, in 24 seconds.
        cache_only = not (is_cached or is_reachable(name, file))
        try:
            return Path(
                hf_hub_download(
                    name.repo, file, revision=name.revision, library_name="encort", local_files_only=cache_only
                )
            )
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise BundleFileMissingError(
                f"{name} has no {file}, so it is not a bundle of encort; make one with: encort export CHECKPOINT, and "
                "upload it with: encort push"
            ) from error


def _link(file: Path, target: Path) -> None:
    """Give a file of the cache its place in the folder of the bundle, in one step, once."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    blob = file.resolve()
    try:
        os.link(blob, target)
    except FileExistsError:  # another process was faster
        pass
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        with temporary_beside(target, Path.touch) as temporary:
            shutil.copyfile(blob, temporary)
            temporary.rename(target)
