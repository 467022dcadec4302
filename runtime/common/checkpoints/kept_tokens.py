"""The kind of a tagger's lists of tokens in training: its checkpoint keeps it, so that later lists are joined alike."""

from typing import Any

from encort.runtime.common.checks import choice
from encort.runtime.common.errors import CheckpointError, InputError
from encort.runtime.common.token_lists import TokenKind

KEPT_TOKENS = "labelled_tokens"
"""Name of the setting in `config.json`. Only encort knows it; its values are those of `TokenKind`."""


def kept_tokens(name: str, config: Any) -> TokenKind | None:
    """Return the kind of the lists of tokens that a tagger was trained on; None if it is not kept.

    Args:
        name: Checkpoint, for the message.
        config: Its configuration.

    Raises:
        CheckpointError: The setting has an unknown value.
    """
    value = getattr(config, KEPT_TOKENS, None)
    try:
        return None if value is None else choice(TokenKind, KEPT_TOKENS, value)
    except InputError as error:
        raise CheckpointError(f"config.json of {name}: {error}") from error
