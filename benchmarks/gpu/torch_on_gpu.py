"""BERT in PyTorch on a GPU, as it is usually run, and as well as it can be: what encort's CUDA graphs are measured by.

Each takes the rows of a token batch and gives sentence embeddings by the mean, `(texts, hidden)` float32, in the
caller's memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.text.token_batch import TokenBatch

PLACES = 16384
"""Places of a padded batch, or tokens of an unpadded one, as many as encort's own runs have."""
ROWS = 32
"""Texts of a batch in the order in which they come."""


class Padded:
    """The model as transformers runs it, with PyTorch's own choice of attention."""

    def __init__(self, model: transformers.BertModel, *, in_order: bool = False) -> None:
        """Take the model where it is.

        Args:
            in_order: Batches of texts as they come; else sorted by length, and as large as memory likes.
        """
        self._model, self._in_order = model, in_order

    @torch.inference_mode()
    def __call__(self, batch: TokenBatch) -> FloatArray:
        found = np.empty((len(batch), self._model.config.hidden_size), np.float32)
        for rows in _in_order(batch) if self._in_order else _sorted(batch, padded=True):
            inputs = {name: torch.from_numpy(array).to(self._model.device) for name, array in batch.rows(rows).items()}
            hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].to(hidden.dtype)
            mean = (mask[:, None] @ hidden)[:, 0].float() / mask.sum(1, dtype=torch.float32)[:, None]
            found[rows] = functional.normalize(mean).cpu().numpy()
        return found


class Unpadded:
    """The same weights over packed tokens, with PyTorch's attention for texts of different lengths."""

    def __init__(self, model: transformers.BertModel, *, attention: Callable[..., Any] | None = None) -> None:
        """Take the weights where they are.

        Args:
            attention: In place of PyTorch's own, which it has since 2.11, for GPUs only.
        """
        if attention is None:
            from torch.nn.attention.varlen import varlen_attn

            attention = varlen_attn
        self._model = model
        self._attention: Callable[..., Any] = attention

    @torch.inference_mode()
    def __call__(self, batch: TokenBatch) -> FloatArray:
        found = np.empty((len(batch), self._model.config.hidden_size), np.float32)
        for rows in _sorted(batch, padded=False):
            found[rows] = self._run(batch, rows).cpu().numpy()
        return found

    def _run(self, batch: TokenBatch, rows: Int64Array) -> torch.Tensor:
        lengths, device = batch.lengths[rows], self._model.device
        begins = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(begins[-1]) - np.repeat(begins[:-1], lengths)
        places = np.repeat(batch.cu_seqlens[rows], lengths) + positions
        ids, types, positions_ = (
            torch.from_numpy(array).to(device) for array in (batch.ids[places], batch.type_ids[places], positions)
        )
        bounds = torch.from_numpy(begins.astype(np.int32)).to(device)
        embeddings = self._model.embeddings
        hidden = embeddings.word_embeddings(ids) + embeddings.token_type_embeddings(types)
        hidden = embeddings.LayerNorm(hidden + embeddings.position_embeddings(positions_))
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


def _in_order(batch: TokenBatch) -> Sequence[Int64Array]:
    return np.split(np.arange(len(batch)), np.arange(ROWS, len(batch), ROWS))


def _sorted(batch: TokenBatch, *, padded: bool) -> Iterator[Int64Array]:
    """Rows of similar length, the longest first, at most `PLACES` with or without their padding."""
    order = np.argsort(-batch.lengths, kind="stable")
    start, places = 0, 0
    for stop, length in enumerate(batch.lengths[order].tolist()):
        longest = int(batch.lengths[order[start]])
        places = (stop - start + 1) * longest if padded else places + length
        if stop > start and places > PLACES:
            yield order[start:stop]
            start, places = stop, length
    yield order[start:]
