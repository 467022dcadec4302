"""Read bge-m3: an encoder of sentence embeddings, with a layer for token vectors and one for sparse embeddings."""

from pathlib import Path
from typing import Any

import torch

from encort.export.source.embedding.torch_modules import DenseModule
from encort.export.source.retrieval.settings import RetrievalSettings
from encort.runtime.bundle.manifest import LateInteraction, Sparse
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.files import check_regular

TOKENS, WEIGHTS = "colbert_linear.pt", "sparse_linear.pt"
"""Files of the two layers, each a pickled state dict."""
_LARGEST = 2**28
"""Largest size of these files, in bytes; those of bge-m3 have 2 MB."""


def read_bge_m3(folder: Path, config: Any, tokenizer: Any) -> RetrievalSettings | None:
    """Return the settings of a folder with both files; None for any other folder.

    Raises:
        CheckpointError: A file is damaged, or holds more than the tensors of a linear layer.
    """
    if not (folder / TOKENS).exists() or not (folder / WEIGHTS).exists():
        return None
    projection = _read_linear(folder / TOKENS, config.hidden_size)
    weights = _read_linear(folder / WEIGHTS, config.hidden_size)
    if weights.out_features != 1:
        raise CheckpointError(f"{folder / WEIGHTS} gives {weights.out_features} numbers per token, expected one")
    special = {
        tokenizer.cls_token_id,
        tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    }
    return RetrievalSettings(
        projection=(DenseModule(projection, torch.nn.Identity(), None).eval(),),
        token_weights=weights,
        # The vector of the first token is the sentence embedding, so it is not compared again.
        late_interaction=LateInteraction(skipped=[int(tokenizer.cls_token_id)]),
        sparse=Sparse(skipped=sorted(int(token) for token in special if token is not None)),
    )


def _read_linear(file: Path, hidden: int) -> torch.nn.Linear:
    try:
        check_regular(file, largest=_LARGEST)
        # Only tensors: a file with any other object is refused, so that none of its code runs.
        state = torch.load(file, map_location="cpu", weights_only=True)
        weight, bias = state["weight"].float(), state["bias"].float()
    except Exception as error:  # torch raises errors of several kinds
        raise CheckpointError(f"{file} holds no weights of a linear layer: {error}") from error
    is_linear = weight.dim() == 2 and weight.shape[1] == hidden and bias.shape == weight.shape[:1]
    if not is_linear or not all(torch.isfinite(tensor).all() for tensor in (weight, bias)):
        raise CheckpointError(f"{file} holds no linear layer of {hidden} finite values; download it again")
    linear = torch.nn.Linear(hidden, len(weight), device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear.requires_grad_(False)
