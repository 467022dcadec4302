"""Eager PyTorch, the one truth that every variant is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encort.export.checkpoint import Checkpoint
from encort.export.description import FloatArray
from encort.runtime.manifest import Output, Pooling, Task
from encort.runtime.tokens import Int64Array


@dataclass(frozen=True, eq=False)
class Case:
    """One batch to compare.

    Attributes:
        name: What it is, for messages.
        ids: `(batch, sequence)` int64.
        type_ids: `(batch, sequence)` int64.
        mask: `(batch, sequence)` int64; the first token of every row counts.
        is_sample: Whether it is a real text, alone.
    """

    name: str
    ids: Int64Array
    type_ids: Int64Array
    mask: Int64Array
    is_sample: bool = False

    @property
    def is_masked(self) -> bool:
        return not self.mask.all()


@dataclass(frozen=True)
class Oracle:
    """The checkpoint in `eval()`, asked for what the bundle promises."""

    checkpoint: Checkpoint
    pooling: Pooling
    normalize: bool

    @torch.inference_mode()
    def __call__(self, case: Case) -> Mapping[Output, FloatArray]:
        """Every output of the bundle for one batch, by eager PyTorch on CPU in float32."""
        model, mask = self.checkpoint.model, torch.from_numpy(case.mask)
        tensors = {
            "input_ids": torch.from_numpy(case.ids),
            "token_type_ids": torch.from_numpy(case.type_ids),
            "attention_mask": mask,
        }
        result = model(**tensors, output_hidden_states=True)
        hidden, pooler = result.hidden_states[-1], model.base_model.pooler
        pooled = None if pooler is None else pooler(hidden)
        outputs = {
            Output.LAST_HIDDEN_STATE: hidden,
            Output.SENTENCE_EMBEDDING: self._sentence(hidden, pooled, mask),
        }
        if pooled is not None:
            outputs[Output.POOLER_OUTPUT] = pooled
        if self.checkpoint.task is Task.TEXT_CLASSIFICATION:
            outputs[Output.LOGITS] = result.logits
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def _sentence(self, hidden: torch.Tensor, pooled: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
        counted = mask.unsqueeze(2).float()
        poolings = {
            Pooling.MEAN: (hidden * counted).sum(1) / counted.sum(1),
            Pooling.CLS: hidden[:, 0],
            Pooling.POOLER: pooled,
        }
        sentence = poolings[self.pooling]
        assert sentence is not None
        return torch.nn.functional.normalize(sentence, dim=1) if self.normalize else sentence


def cosines(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of each row with its partner, `(n,)`, for arrays `(n, dim)`."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    result: NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return result
