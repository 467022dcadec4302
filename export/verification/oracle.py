"""Eager PyTorch, the one truth that every variant is compared with."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    Embedding,
    HeadInfo,
    Pooling,
)
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import CheckpointError
from encort.runtime.text.token_batch import padded


@dataclass(frozen=True, kw_only=True)
class TokenRange:
    """What random inputs may hold.

    Attributes:
        length: Most tokens of one input.
        ids: Number of token ids.
        types: Number of token type ids.
    """

    length: int
    ids: int
    types: int


@dataclass(frozen=True, eq=False)
class Case:
    """One batch to compare.

    Attributes:
        name: What it is, for messages.
        inputs: Every input that a graph may have, each `(batch, sequence)` int64; the first token of every row
            counts.
        is_sample: Whether it is a real text, alone.
    """

    name: str
    inputs: Mapping[str, Int64Array]
    is_sample: bool = False

    @property
    def mask(self) -> Int64Array:
        return self.inputs["attention_mask"]

    @property
    def is_masked(self) -> bool:
        return not self.mask.all()

    @property
    def has_holes(self) -> bool:
        """Whether a token that counts stands behind one that does not, as in no text."""
        return bool((np.diff(self.mask, axis=1) > 0).any())


def padded_case(name: str, texts: Sequence[Mapping[str, Int64Array]]) -> Case:
    """Texts under each other, each with zeros after its end."""
    return Case(name, padded(texts))


@dataclass(frozen=True)
class Oracle:
    """Checkpoints in `eval()`, asked for what the bundle promises.

    Attributes:
        checkpoints: One a head, all with the same encoder; or one encoder alone.
        heads: Of the checkpoints, in their order.
        embedding: How sentence embeddings are made; None for a model that gives none.
    """

    checkpoints: tuple[Checkpoint, ...]
    heads: tuple[HeadInfo, ...]
    embedding: Embedding | None

    @property
    def is_tokenwise(self) -> bool:
        """Whether a head has a row a token and not a row a text."""
        return any(head.task.is_tokenwise for head in self.heads)

    @torch.inference_mode()
    def __call__(self, case: Case) -> Mapping[str, FloatArray]:
        """Every output of the bundle for one batch, by eager PyTorch on CPU in float32."""
        tensors = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
        outputs: dict[str, torch.Tensor] = {}
        for index, checkpoint in enumerate(self.checkpoints):
            result, encoded = _run(checkpoint.model, tensors)
            if index == 0 and self.embedding is not None:
                outputs |= _encoder_outputs(encoded, tensors["attention_mask"], self.embedding)
            if self.heads:
                outputs |= zip(self.heads[index].outputs, _logits(result), strict=True)
        return {name: tensor.numpy() for name, tensor in outputs.items()}


def _run(model: Any, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, Any]:
    """The model's result, and that of the encoder in it."""
    encoded: list[Any] = []
    # Two encoders have no one base model, and no embeddings.
    encoder = getattr(model, "base_model", model)
    hook = encoder.register_forward_hook(lambda _module, _inputs, result: encoded.append(result))
    # Each architecture takes its own part of the inputs; where there is one type, its tokenizer may know of two.
    wanted = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", 2) == 1:
        wanted.discard("token_type_ids")
    try:
        result = model(**{name: tensor for name, tensor in tensors.items() if name in wanted})
    except (IndexError, RuntimeError) as error:
        shape = tuple(tensors["input_ids"].shape)
        raise CheckpointError(
            f"eager PyTorch cannot run {shape} token ids ({error}); if they are too many, lower --max-length"
        ) from error
    finally:
        hook.remove()
    return result, encoded[0]


def _encoder_outputs(encoded: Any, mask: torch.Tensor, embedding: Embedding) -> dict[str, torch.Tensor]:
    hidden, pooled = encoded.last_hidden_state, getattr(encoded, "pooler_output", None)
    outputs = {LAST_HIDDEN_STATE: hidden} if pooled is None else {LAST_HIDDEN_STATE: hidden, POOLER_OUTPUT: pooled}
    counted = mask.unsqueeze(2).float()
    poolings = {
        Pooling.MEAN: (hidden * counted).sum(1) / counted.sum(1),
        Pooling.CLS: hidden[:, 0],
        Pooling.POOLER: pooled,
    }
    sentence = poolings[embedding.pooling]
    assert sentence is not None
    outputs[SENTENCE_EMBEDDING] = torch.nn.functional.normalize(sentence, dim=1) if embedding.normalize else sentence
    return outputs


def _logits(result: Any) -> tuple[torch.Tensor, ...]:
    """The head's outputs: its logits, or those of start and end."""
    if isinstance(result, torch.Tensor):
        return (result,)
    return (result.logits,) if "logits" in result else (result.start_logits, result.end_logits)
