"""Results as sentence-transformers gives them: truncated, normalized, in few bits, as arrays or tensors."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encort.integrations.sentence_transformers.tensors import torch_for
from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.quantization import EmbeddingPrecision, quantize_embeddings
from encort.runtime.text.token_batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_NORM = 1e-12
"""Embeddings are divided by at least this, as in PyTorch."""


def finish(embeddings: FloatArray, *, size: int | None, precision: EmbeddingPrecision, normalize: bool) -> NDArray[Any]:
    """Return the leading values of embeddings, then divided by their length, then in few bits.

    Args:
        embeddings: `(n, dim)` float32.
        size: Number of leading values; None: all.
        precision: See `quantize_embeddings`, which takes the ranges of these embeddings.
        normalize: Whether they get the length 1.
    """
    if not len(embeddings):
        return embeddings
    embeddings = np.ascontiguousarray(embeddings[:, :size])
    if normalize:
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), _SMALLEST_NORM)
    return quantize_embeddings(embeddings, precision)


def converted(values: NDArray[Any], device: Any, *, as_tensor: bool, as_array: bool) -> Any:
    """Return values as one tensor, as an array, or as a list of tensors.

    Args:
        values: One row per input.
        device: Returns the device of tensors.
        as_tensor: Whether to return one tensor.
        as_array: Whether to return an array, if it is no tensor.
    """
    if not len(values):
        values = np.array([], values.dtype if as_tensor else np.float64)  # as sentence-transformers returns it
    if as_array and not as_tensor:
        return values
    tensor = torch_for("what encode and predict return with these options").from_numpy(values).to(device())
    return tensor if as_tensor else list(tensor)


def token_features(batch: TokenBatch, states: list[FloatArray], embeddings: FloatArray) -> "list[dict[str, Tensor]]":
    """Return token ids, masks, hidden states and embedding of each text, without padding.

    Args:
        batch: The texts.
        states: Hidden states of each text, `(tokens, hidden)` float32.
        embeddings: `(n, dim)` float32.
    """
    tensor = torch_for("an output_value other than sentence_embedding").from_numpy
    ids, type_ids = (np.split(values, batch.cu_seqlens[1:])[: len(batch)] for values in (batch.ids, batch.type_ids))
    rows = zip(ids, type_ids, states, embeddings, strict=True)
    return [
        {
            "input_ids": tensor(ids),
            "token_type_ids": tensor(type_ids),
            "attention_mask": tensor(np.ones_like(ids)),
            "token_embeddings": tensor(of_tokens),
            "sentence_embedding": tensor(embedding),
        }
        for ids, type_ids, of_tokens, embedding in rows
    ]
