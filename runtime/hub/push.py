"""Upload a bundle to the hub: one commit with the files of the manifest and the page of the bundle."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import MANIFEST_FILE
from encort.runtime.common.errors import InputError, OutputExistsError
from encort.runtime.common.files import LARGEST_JSON, parse_json, read_bytes
from encort.runtime.hub.card import CARD_FILE, CARD_MARK, make_card
from encort.runtime.hub.client import require_hub, translated
from encort.runtime.hub.download import open_bundle
from encort.runtime.hub.names import HubName

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

log = logging.getLogger("encort")

_NEW_REPO = {".gitattributes", CARD_FILE}
"""Files of a repository without a bundle, which a push may add one to."""


def push(
    bundle: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a bundle to the hub, and return its name there: `hf://org/name@COMMIT`.

    The repository is created if it does not exist. All files come in one commit, so that nobody can download half of a
    bundle. Files of an earlier bundle that are no longer needed are deleted. The page (`README.md`) is made of the
    manifest, unless the repository has a page that somebody wrote.

    Args:
        bundle: Folder of the bundle, or its name on the hub.
        repo: Repository, `org/name`.
        private: Whether a new repository is private; None: as the hub or the organization decides.
        revision: Branch to commit to, which is created if it does not exist; None: `main`.
        message: Message of the commit.
        token: Token of the hub; None: that of `HF_TOKEN` or `hf auth login`.

    Raises:
        BundleError: The bundle is damaged; nothing was uploaded.
        InputError: `repo` or `revision` is no name.
        OutputExistsError: The repository has other files, and no bundle.
        HubError: The hub cannot be reached, or does not allow it.
        MissingExtraError: huggingface_hub is not installed.
    """
    require_hub("encort push")
    name = HubName.parse(repo)
    if name.revision is not None:
        raise InputError(f"{repo!r} has a revision; name the branch with revision (--revision)")
    name = name if revision is None else name.at(revision)
    opened = open_bundle(bundle)
    for file in opened.manifest.files:
        opened.check(file)
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="encort")
    with translated(name):
        api.create_repo(name.repo, private=private, exist_ok=True)
        if name.revision is not None:
            api.create_branch(name.repo, branch=name.revision, exist_ok=True)
        commit = api.create_commit(
            name.repo,
            operations=list(_operations(api, name, opened)),
            commit_message=message or "Upload a bundle of encort",
            revision=name.revision,
        )
    return str(name.at(commit.oid))


def _operations(api: "HfApi", name: HubName, bundle: Bundle) -> "Iterator[CommitOperationAdd | CommitOperationDelete]":
    """Yield the changes of the commit.

    Raises:
        OutputExistsError: The repository has other files, and no bundle.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there, files = set(api.list_repo_files(name.repo, revision=name.revision)), {MANIFEST_FILE, *bundle.manifest.files}
    if MANIFEST_FILE not in there and (others := there - _NEW_REPO):
        raise OutputExistsError(
            f"{name} has {sorted(others)[0]} and no {MANIFEST_FILE}: it will not be replaced; push to another name"
        )
    if MANIFEST_FILE in there:
        for file in sorted(_files_of_earlier_bundle(api, name) & there - files - _NEW_REPO):
            yield CommitOperationDelete(file)
    for file in sorted(files - _NEW_REPO):
        yield CommitOperationAdd(file, bundle.folder / file)
    if CARD_FILE in there and CARD_MARK not in _read(api, name, CARD_FILE):
        log.warning("%s has a %s that encort did not write; it stays as it is", name, CARD_FILE)
    else:
        yield CommitOperationAdd(CARD_FILE, make_card(bundle.manifest, name.repo).encode())


def _files_of_earlier_bundle(api: "HfApi", name: HubName) -> set[str]:
    """Return the names of files in the manifest of the repository; none if it is damaged."""
    try:
        plain = parse_json(_read(api, name, MANIFEST_FILE))
    except ValueError:
        return set()
    files = plain.get("files") if isinstance(plain, dict) else None
    return set(files) if isinstance(files, dict) else set()


def _read(api: "HfApi", name: HubName, file: str) -> str:
    path = Path(api.hf_hub_download(name.repo, file, revision=name.revision))
    return read_bytes(path, largest=LARGEST_JSON).decode("utf-8", "replace")
