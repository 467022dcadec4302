"""Find the folder of a checkpoint, downloaded from the hub if need be."""

from pathlib import Path

from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.folders import is_missing_folder

_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md", "*_linear.pt"]
"""Files that are downloaded, from all folders: no code, and no pickled weights but the two small layers of bge-m3."""


def locate(name: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Return the folder of a checkpoint, downloaded if need be, and the commit of a hub id.

    Args:
        name: Folder or hub id.
        revision: Commit, branch or tag of a hub id.

    Raises:
        CheckpointError: There is no such folder or hub id, or a folder has a revision.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{name} is a folder, which has no revision {revision!r}; leave --revision out")
        return folder, None
    if is_missing_folder(name):
        raise CheckpointError(f"there is no checkpoint folder {name}")
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except Exception as error:  # the hub's client raises errors of several libraries
        said = " ".join(str(error).split())
        raise CheckpointError(f"{name} is neither a folder nor a model that the hub gives ({said})") from error
    # The hub's cache names the folder of a snapshot after its commit.
    return snapshot, snapshot.name
