"""BERT in PyTorch on a GPU, as the baseline of encort's CUDA graphs: as it is usually run, and as fast as it can be.

Both classes take a token batch and return sentence embeddings by the mean, `(texts, hidden)` float32, in host memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.text.token_batch import TokenBatch

BATCH_TOKENS = 16384
"""Most tokens of a batch, including the padding of a padded batch; encort's own runs have as many."""
BATCH_TEXTS = 32
"""Texts per batch where the order of the texts is kept."""


class Padded:
    """Runs the model with padding, as transformers does, with the attention that PyTorch chooses."""

    def __init__(self, model: transformers.BertModel, *, keep_order: bool = False) -> None:
        """Use the model on its device.

        Args:
            model: BERT.
            keep_order: Make small batches of texts in their order; otherwise large ones, sorted by length.
        """
        self._model, self._keep_order = model, keep_order

    @torch.inference_mode()
    def __call__(self, batch: TokenBatch) -> FloatArray:
        """Return the embeddings of all texts."""
        embeddings = np.empty((len(batch), self._model.config.hidden_size), np.float32)
        for rows in _batches_in_order(batch) if self._keep_order else _sorted_batches(batch, padded=True):
            inputs = {name: torch.from_numpy(array).to(self._model.device) for name, array in batch.rows(rows).items()}
            hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].to(hidden.dtype)
            mean = (mask[:, None] @ hidden)[:, 0].float() / mask.sum(1, dtype=torch.float32)[:, None]
            embeddings[rows] = functional.normalize(mean).cpu().numpy()
        return embeddings


class Unpadded:
    """Runs the model on packed tokens, with PyTorch's attention for texts of different lengths."""

    def __init__(self, model: transformers.BertModel, *, attention: Callable[..., Any] | None = None) -> None:
        """Use the weights on their device.

        Args:
            model: BERT.
            attention: Replaces PyTorch's `varlen_attn`, which needs PyTorch 2.11 and a GPU.
        """
        if attention is None:
            from torch.nn.attention.varlen import varlen_attn

            attention = varlen_attn
        self._model = model
        self._attention: Callable[..., Any] = attention

    @torch.inference_mode()
    def __call__(self, batch: TokenBatch) -> FloatArray:
        """Return the embeddings of all texts."""
        embeddings = np.empty((len(batch), self._model.config.hidden_size), np.float32)
        for rows in _sorted_batches(batch, padded=False):
            embeddings[rows] = self._run(batch, rows).cpu().numpy()
        return embeddings

    def _run(self, batch: TokenBatch, rows: Int64Array) -> torch.Tensor:
        lengths, device = batch.lengths[rows], self._model.device
        starts = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        tokens = np.repeat(batch.cu_seqlens[rows], lengths) + positions
        ids, type_ids, position_ids = (
            torch.from_numpy(array).to(device) for array in (batch.ids[tokens], batch.type_ids[tokens], positions)
        )
        bounds = torch.from_numpy(starts.astype(np.int32)).to(device)
        embeddings = self._model.embeddings
        hidden = embeddings.word_embeddings(ids) + embeddings.token_type_embeddings(type_ids)
        hidden = embeddings.LayerNorm(hidden + embeddings.position_embeddings(position_ids))
        for layer in self._model.encoder.layer:
            hidden = self._layer(layer, hidden, bounds, int(lengths.max()))
        texts = torch.from_numpy(np.repeat(np.arange(len(rows)), lengths)).to(device)
        total = torch.zeros(len(rows), hidden.shape[1], device=device).index_add_(0, texts, hidden.float())
        return functional.normalize(total)

    def _layer(self, layer: Any, hidden: torch.Tensor, bounds: torch.Tensor, longest: int) -> torch.Tensor:
        attention, heads = layer.attention.self, self._model.config.num_attention_heads
        query, key, value = (
            project(hidden).unflatten(1, (heads, -1)) for project in (attention.query, attention.key, attention.value)
        )
        context = self._attention(query, key, value, bounds, bounds, longest, longest).flatten(1)
        output = layer.attention.output
        hidden = output.LayerNorm(output.dense(context) + hidden)
        inner = functional.gelu(layer.intermediate.dense(hidden))
        result: torch.Tensor = layer.output.LayerNorm(layer.output.dense(inner) + hidden)
        return result


def _batches_in_order(batch: TokenBatch) -> Sequence[Int64Array]:
    return np.split(np.arange(len(batch)), np.arange(BATCH_TEXTS, len(batch), BATCH_TEXTS))


def _sorted_batches(batch: TokenBatch, *, padded: bool) -> Iterator[Int64Array]:
    """Yield texts of similar length, the longest first, at most `BATCH_TOKENS` with or without their padding."""
    order = np.argsort(-batch.lengths, kind="stable")
    start, tokens = 0, 0
    for stop, length in enumerate(batch.lengths[order].tolist()):
        longest = int(batch.lengths[order[start]])
        tokens = (stop - start + 1) * longest if padded else tokens + length
        if stop > start and tokens > BATCH_TOKENS:
            yield order[start:stop]
            start, tokens = stop, length
    yield order[start:]
