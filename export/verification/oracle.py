"""The oracle: eager PyTorch, which gives the expected outputs of every variant."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encort.export.source.checkpoint import Checkpoint
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    MASK_POSITION,
    POOLER_OUTPUT,
    PROMPT_LENGTH,
    SENTENCE_EMBEDDING,
    Embedding,
    HeadInfo,
    Pooling,
    Task,
)
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import CheckpointError
from encort.runtime.text.token_batch import pad_rows

LONG = 1024
"""Tokens of a text from which eager attention would need gigabytes: at 8,192 tokens, 3 GiB of scores per layer."""


@dataclass(frozen=True, kw_only=True)
class TokenRange:
    """Range of random inputs.

    Attributes:
        length: Largest number of tokens of one input.
        ids: Number of token ids.
        types: Number of token type ids.
    """

    length: int
    ids: int
    types: int

    @classmethod
    def of(cls, source: ExportSource) -> "TokenRange":
        """Return the range that every encoder of the source accepts."""
        configs = source.checkpoints[0].encoder_configs.values()
        return cls(
            length=source.max_length,
            ids=min(config.vocab_size for config in configs),
            types=min(getattr(config, "type_vocab_size", 1) or 1 for config in configs),
        )


@dataclass(frozen=True, eq=False)
class Case:
    """One batch to compare.

    Attributes:
        name: Description for messages.
        inputs: Every input that a padded graph may have, each `(batch, sequence)` int64. For models that leave prompts
            out of the pooling also `prompt_length`, and for masked words `mask_position`, `(batch,)` int64. The first
            token of every row is unmasked.
        is_sample: Whether the batch is one sample text.
    """

    name: str
    inputs: Mapping[str, Int64Array]
    is_sample: bool = False

    @property
    def mask(self) -> Int64Array:
        """Attention mask, `(batch, sequence)` int64."""
        return self.inputs["attention_mask"]

    @property
    def is_masked(self) -> bool:
        """Whether a token is masked."""
        return not self.mask.all()

    @property
    def has_holes(self) -> bool:
        """Whether an unmasked token follows a masked one, which real texts never have."""
        return bool((np.diff(self.mask, axis=1) > 0).any())


def padded_case(name: str, texts: Sequence[Mapping[str, Int64Array]]) -> Case:
    """Return a case that holds all texts, padded with zeros at the end."""
    return Case(name, pad_rows(texts))


@dataclass(frozen=True)
class Oracle:
    """Eager PyTorch that gives the outputs of a bundle.

    Attributes:
        checkpoints: One checkpoint per head, all with the same encoder, in `eval()`; or one encoder alone.
        heads: Heads of the checkpoints, in the same order.
        embedding: Settings of sentence embeddings; None for a model without embeddings.
    """

    checkpoints: tuple[Checkpoint, ...]
    heads: tuple[HeadInfo, ...]
    embedding: Embedding | None

    @classmethod
    def of(cls, source: ExportSource) -> "Oracle":
        """Return the oracle of a source."""
        return cls(source.checkpoints, source.heads, source.embedding)

    @property
    def is_tokenwise(self) -> bool:
        """Whether a head gives a row per token instead of a row per text."""
        return any(head.task.is_tokenwise for head in self.heads)

    @torch.inference_mode()
    def __call__(self, case: Case) -> Mapping[str, FloatArray]:
        """Return every output of the bundle for one batch, computed on the CPU in float32.

        Raises:
            CheckpointError: The model cannot run the batch.
        """
        tensors = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
        outputs: dict[str, torch.Tensor] = {}
        for index, checkpoint in enumerate(self.checkpoints):
            result, encoded = _run(checkpoint.model, tensors)
            if index == 0 and self.embedding is not None:
                outputs |= _encoder_outputs(encoded, tensors, self.embedding, checkpoint.embedding.modules)
            if index == 0:
                outputs |= checkpoint.retrieval.outputs(result, encoded, tensors["attention_mask"])
            if self.heads:
                head = self.heads[index]
                logits = [_masked(result, tensors)] if head.task is Task.FILL_MASK else _logits(result)
                outputs |= zip(head.outputs, logits, strict=True)
        return {name: tensor.numpy() for name, tensor in outputs.items()}


def _run(model: Any, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, Any]:
    """Return the result of the model, and the result of the encoder inside it."""
    encoder_results: list[Any] = []
    # A dual encoder has no single base model. It also has no embeddings, so the encoder's result is not used.
    encoder = getattr(model, "base_model", model)
    hook = encoder.register_forward_hook(lambda _module, _inputs, result: encoder_results.append(result))
    # Each architecture takes only some of the inputs. A tokenizer may give two types to a model that has one.
    accepted = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", 2) == 1:
        accepted.discard("token_type_ids")
    try:
        with _attention_for(model, tensors["input_ids"].shape[1]):
            result = model(**{name: tensor for name, tensor in tensors.items() if name in accepted})
    except (IndexError, RuntimeError) as error:
        shape = tuple(tensors["input_ids"].shape)
        raise CheckpointError(
            f"eager PyTorch cannot run {shape} token ids ({error}); if they are too many, lower --max-length"
        ) from error
    finally:
        hook.remove()
    return result, encoder_results[0]


@contextmanager
def _attention_for(model: Any, length: int) -> Iterator[None]:
    """Compute the attention of long texts in PyTorch's own kernel, which keeps no scores, if the model can use it."""
    if length <= LONG or not getattr(model, "_supports_sdpa", False):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation("eager")


def _encoder_outputs(
    encoded: Any, tensors: Mapping[str, torch.Tensor], embedding: Embedding, modules: Sequence[torch.nn.Module]
) -> dict[str, torch.Tensor]:
    hidden, pooled = encoded.last_hidden_state, getattr(encoded, "pooler_output", None)
    outputs = {LAST_HIDDEN_STATE: hidden} if pooled is None else {LAST_HIDDEN_STATE: hidden, POOLER_OUTPUT: pooled}
    mask = tensors["attention_mask"]
    if not embedding.include_prompt:
        mask = mask * (torch.arange(mask.shape[1]) >= tensors[PROMPT_LENGTH][:, None])
    sentence = torch.cat([_pool(pooling, hidden, pooled, mask) for pooling in embedding.pooling], dim=1)
    sentence = torch.nn.Sequential(*modules)(sentence)
    outputs[SENTENCE_EMBEDDING] = torch.nn.functional.normalize(sentence, dim=1) if embedding.normalize else sentence
    return outputs


def _pool(pooling: Pooling, hidden: torch.Tensor, pooled: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
    """Return one vector per text, `(batch, hidden)`, computed text by text."""
    if pooling is Pooling.POOLER:
        assert pooled is not None
        return pooled
    texts = [states[counts == 1] for states, counts in zip(hidden, mask, strict=True)]
    positions = [1 + torch.nonzero(counts)[:, 0] for counts in mask]
    return torch.stack([_pool_text(pooling, *text) for text in zip(texts, positions, strict=True)])


def _pool_text(pooling: Pooling, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the vector of one text.

    Args:
        pooling: Any pooling but `POOLER`.
        tokens: Hidden states of the tokens that are pooled, `(tokens, hidden)`.
        positions: Their positions in the text, counted from 1, `(tokens,)`.
    """
    match pooling:
        case Pooling.CLS:
            return tokens[0]
        case Pooling.LAST_TOKEN:
            return tokens[-1]
        case Pooling.MAX:
            return tokens.amax(0)
        case Pooling.MEAN_SQRT_LEN:
            return tokens.sum(0) / math.sqrt(len(tokens))
        case Pooling.WEIGHTED_MEAN:
            return (tokens * positions[:, None]).sum(0) / positions.sum()
    return tokens.mean(0)


def _masked(result: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of one token of each text, `(batch, vocabulary)`."""
    positions = tensors[MASK_POSITION]
    logits: torch.Tensor = result.logits[torch.arange(len(positions)), positions]
    return logits


def _logits(result: Any) -> tuple[torch.Tensor, ...]:
    """Return the outputs of the head: its logits, or start logits and end logits."""
    if isinstance(result, torch.Tensor):
        return (result,)
    return (result.logits,) if "logits" in result else (result.start_logits, result.end_logits)
