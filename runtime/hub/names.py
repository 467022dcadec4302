"""Names of bundles on the hub: `hf://org/name` or `hf://org/name@revision`."""

import re
from dataclasses import dataclass

from encort.runtime.common.errors import InputError

PREFIX = "hf://"
_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_](?:[\w./+-]{0,198}[\w+-])?", re.ASCII)
_REFUSED_IN_REPO = ("..", "--")
"""A part of a path, and what the hub's cache puts between the parts of a name."""
_REFUSED_IN_REVISION = ("..", "//", "/.")


@dataclass(frozen=True)
class HubName:
    """A repository of the hub at a revision.

    Attributes:
        repo: Organization or user, and name: `org/name`.
        revision: Commit, branch or tag; None: the branch `main`.
    """

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Read a name with or without `hf://`.

        >>> HubName.parse("hf://org/name@v1")
        HubName(repo='org/name', revision='v1')

        Raises:
            InputError: It is no name of a repository, or no name of a revision.
        """
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        return cls(_checked_repo(text, repo), _checked_revision(text, revision) if at else None)

    def at(self, revision: str) -> "HubName":
        """Return the repository at another revision.

        Raises:
            InputError: It is no name of a revision.
        """
        return HubName(self.repo, _checked_revision(revision, revision))

    def __str__(self) -> str:
        return PREFIX + self.repo + ("" if self.revision is None else f"@{self.revision}")


def is_hub_name(bundle: object) -> bool:
    """Return whether a bundle is named by its place on the hub, and not by its folder."""
    return isinstance(bundle, str) and bundle.startswith(PREFIX)


def _checked_repo(text: str, repo: str) -> str:
    parts = repo.split("/")
    is_name = len(parts) == 2 and all(map(_PART.fullmatch, parts)) and not repo.endswith(".git")
    if not is_name or any(refused in repo for refused in _REFUSED_IN_REPO):
        raise InputError(f"{text!r} names no repository of the hub; expected org/name, as in {PREFIX}org/name@revision")
    return repo


def _checked_revision(text: str, revision: str) -> str:
    if not _REVISION.fullmatch(revision) or any(refused in revision for refused in _REFUSED_IN_REVISION):
        raise InputError(f"{text!r} names no revision; expected a commit, a branch or a tag, as in {PREFIX}org/name@v1")
    return revision
