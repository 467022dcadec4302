"""Check that an encoder, before a training, has exactly the weights of its checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from encort.runtime.common.checkpoints.config import check_parameters
from encort.runtime.common.checkpoints.majors import mismatched_names
from encort.runtime.common.checkpoints.weights import is_buffer, shortened, weight_files
from encort.runtime.common.errors import CheckpointError


def check_outline(folder: Path, config: Any, auto_class: Any) -> None:
    """Refuse settings of an encoder that is far larger than its weights, before memory is taken for it.

    Args:
        folder: Folder with the weights.
        config: Settings, of transformers.
        auto_class: Class of transformers that makes the network.

    Raises:
        CheckpointError: The settings describe no network, or its weights are far larger than those of the folder.
    """
    try:
        with torch.device("meta"):
            encoder = auto_class.from_config(config, trust_remote_code=False).base_model
    except Exception as error:  # whatever transformers and torch raise
        raise CheckpointError(f"{folder} cannot be trained: {first_line(error)}") from error
    check_parameters(
        str(folder),
        parameters=sum(weight.numel() for weight in encoder.parameters()),
        stored_bytes=sum(file.stat().st_size for file in weight_files(folder)),
    )


def check_loaded(name: str, network: Any, info: Mapping[str, Any]) -> None:
    """Refuse new weights outside of the head and the pooler, and weights of the encoder that are not used.

    Args:
        name: Folder or hub id.
        network: Network of transformers.
        info: `output_loading_info` of transformers.

    Raises:
        CheckpointError: There are such weights.
    """
    prefix = f"{network.base_model_prefix}."
    mismatched = mismatched_names(info["mismatched_keys"])
    missing = {weight.removeprefix(prefix) for weight in info["missing_keys"]}
    encoder = set(network.base_model.state_dict())
    pooler = {weight for weight in encoder if weight.startswith("pooler.")}
    # A checkpoint may come without a pooler, but half of one is damage.
    needed = encoder - pooler if pooler <= missing else encoder
    lacking = sorted((needed & missing) | (encoder & {weight.removeprefix(prefix) for weight in mismatched}))
    if lacking:
        raise CheckpointError(f"{name} lacks weights of its own architecture, {lacking[0]} among them; save it whole")
    parts = {part for part, _ in network.base_model.named_children()} - {"pooler"}
    unused = [weight for weight in info["unexpected_keys"] if weight.removeprefix(prefix).partition(".")[0] in parts]
    if left_out := sorted(weight for weight in unused if not is_buffer(weight)):
        raise CheckpointError(
            f"{name} has weights of its encoder that its config.json leaves out: {shortened(left_out)}; "
            "give it the settings that it was trained with"
        )


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error, or else its type."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
