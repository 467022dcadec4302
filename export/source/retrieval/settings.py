"""`RetrievalSettings`: token vectors and sparse embeddings that a checkpoint gives."""

from dataclasses import dataclass
from typing import Any

import torch

from encort.export.graph.description import Expansion, RetrievalWeights, VocabularyHead
from encort.export.source.embedding.torch_modules import NormalizeModule, describe_linear, describe_modules
from encort.export.source.retrieval.splade import SpladePooling
from encort.runtime.bundle.manifest import (
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_WEIGHTS,
    LateInteraction,
    Sparse,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalSettings:
    """Token vectors and sparse embeddings, as PyTorch modules on the hidden states and as settings of the bundle.

    Attributes:
        projection: Modules that make token vectors; they are normalized after it. None: there are no token vectors.
        token_weights: Layer that gives each token a weight, cut at 0; None: there are no weights.
        expansion: How words of the vocabulary get weights; None: there are none.
        late_interaction: Settings of the token vectors.
        sparse: Settings of the sparse embeddings.
        has_sentence_embedding: Whether the checkpoint gives sentence embeddings, too.
    """

    projection: tuple[torch.nn.Module, ...] | None = None
    token_weights: torch.nn.Linear | None = None
    expansion: SpladePooling | None = None
    late_interaction: LateInteraction | None = None
    sparse: Sparse | None = None
    has_sentence_embedding: bool = True

    @property
    def max_length(self) -> int | None:
        """Most tokens of a query or a document; None: they have no limits of their own."""
        prompts = {} if self.late_interaction is None else self.late_interaction.prompts
        return max((prompt.max_length for prompt in prompts.values()), default=None)

    @property
    def expands_unattended(self) -> bool:
        """Whether some tokens give vectors, although no other token attends to them."""
        prompts = {} if self.late_interaction is None else self.late_interaction.prompts
        return any(prompt.expansion is not None and not prompt.attends_expansion for prompt in prompts.values())

    def outputs(self, result: Any, encoded: Any, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs by name.

        Args:
            result: Result of the model.
            encoded: Result of its encoder.
            mask: `(batch, sequence)`, 1 on tokens.
        """
        outputs: dict[str, torch.Tensor] = {}
        if self.projection is not None:
            vectors = torch.nn.Sequential(*self.projection, NormalizeModule())
            outputs[TOKEN_EMBEDDINGS] = vectors(encoded.last_hidden_state)
        if self.token_weights is not None:
            outputs[TOKEN_WEIGHTS] = torch.relu(self.token_weights(encoded.last_hidden_state)).squeeze(-1)
        if self.expansion is not None:
            outputs[SPARSE_EMBEDDING] = self.expansion.weights(result.logits, mask)
        return outputs

    def describe(self, words: VocabularyHead | None) -> RetrievalWeights:
        """Return the weights under neutral names.

        Args:
            words: Head that gives the logits of words; None if there is no `expansion`.
        """
        weights, splade = self.token_weights, self.expansion
        return RetrievalWeights(
            projection=None if self.projection is None else describe_modules(self.projection, "token"),
            token_weights=None if weights is None else describe_linear(weights, "token_weights"),
            expansion=None
            if splade is None or words is None
            else Expansion(words=words, pooling=splade.pooling, logarithms=splade.logarithms),
        )
