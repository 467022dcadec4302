"""The errors of huggingface_hub, and of the libraries that it uses, as errors of encort."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from encort.runtime.common.errors import EncortError, HubError
from encort.runtime.common.extras import require
from encort.runtime.common.folders import shorten_path
from encort.runtime.common.output.escaping import printable
from encort.runtime.hub.names import HubName

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_LONGEST = 300
"""Characters of a message of the hub or of its client."""


def require_hub(what: str) -> None:
    """Check that huggingface_hub is installed.

    Raises:
        MissingExtraError: It is not.
    """
    require(what, "hub", "huggingface_hub")


def is_reachable(name: HubName, file: str) -> bool:
    """Return whether the hub answers when it is asked for a file once, whatever it answers."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(name.repo, file, revision=name.revision))
    except HfHubHTTPError:
        return True
    except _network_errors():
        return False
    return True


@contextmanager
def translated(name: HubName) -> Iterator[None]:
    """Translate the errors of a block that calls huggingface_hub. Its progress bars are shown on terminals only.

    Raises:
        HubError: The hub cannot be reached, or does not give or take what it was asked for; or the disk is full.
    """
    failures: tuple[type[Exception], ...] = (*_network_errors(), ValueError, RuntimeError)
    try:
        with _progress_on_terminals():
            yield
    except EncortError:
        raise
    except failures as error:
        raise HubError(_describe(name, error)) from error


def _network_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the hub's network library, which differs between the major versions of its client."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, OSError)


@contextmanager
def _progress_on_terminals() -> Iterator[None]:
    import huggingface_hub

    constants, utils = huggingface_hub.constants, cast("Any", huggingface_hub.utils)  # not typed before 1.0
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if is_terminal or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or utils.are_progress_bars_disabled():
        yield  # as the user wants it
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _describe(name: HubName, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return f"{name} {_not_reached(error)}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.repo} has no revision {name.revision or 'main'!r}; name a commit, a branch or a tag"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub shows no {name.repo}: it does not exist, or it is private or gated and your token may not read "
            f"it; check the name, and {_LOG_IN}"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(name, error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:  # a full disk, a missing permission
        where = "the hub's cache" if error.filename is None else shorten_path(error.filename)
        return f"{name}: {where} cannot be written: {error.strerror}"
    said = _shortened(error)
    return f"{name}: {said if isinstance(error, ValueError | RuntimeError) else f'{_unreachable()} ({said})'}"


def _not_reached(error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "cannot be reached while HF_HUB_OFFLINE is set; unset it"
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable()
    return f"is not in the hub's cache on this machine, and {why}"


def _unreachable() -> str:
    from huggingface_hub import constants

    return f"the hub cannot be reached at {constants.ENDPOINT}"


def _refusal(name: HubName, error: "HfHubHTTPError") -> str:
    status = None if error.response is None else error.response.status_code
    said = f"{name}: the hub answers {status} ({_shortened(error.server_message or error)})"
    return f"{said}; {_LOG_IN} with a token that may do this" if status in (401, 403) else said


def _shortened(message: object) -> str:
    text = printable(" ".join(str(message).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
