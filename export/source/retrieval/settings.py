"""`RetrievalSettings`: token vectors and sparse embeddings that a checkpoint gives."""

from dataclasses import dataclass
from typing import Any

import torch

from encort.export.graph.description import RetrievalWeights
from encort.export.source.embedding.torch_modules import NormalizeModule, describe_linear, describe_modules
from encort.runtime.bundle.manifest import TOKEN_EMBEDDINGS, TOKEN_WEIGHTS, LateInteraction, Sparse


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalSettings:
    """Token vectors and sparse embeddings, as PyTorch modules on the hidden states and as settings of the bundle.

    Attributes:
        projection: Modules that make token vectors; they are normalized after it. None: there are no token vectors.
        token_weights: Layer that gives each token a weight, cut at 0; None: there are no weights.
        late_interaction: Settings of the token vectors.
        sparse: Settings of the sparse embeddings.
        has_sentence_embedding: Whether the checkpoint gives sentence embeddings, too.
    """

    projection: tuple[torch.nn.Module, ...] | None = None
    token_weights: torch.nn.Linear | None = None
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

    def outputs(self, encoded: Any) -> dict[str, torch.Tensor]:
        """Return the outputs by name, each with one row per token, from the result of the encoder."""
        outputs: dict[str, torch.Tensor] = {}
        if self.projection is not None:
            vectors = torch.nn.Sequential(*self.projection, NormalizeModule())
            outputs[TOKEN_EMBEDDINGS] = vectors(encoded.last_hidden_state)
        if self.token_weights is not None:
            outputs[TOKEN_WEIGHTS] = torch.relu(self.token_weights(encoded.last_hidden_state)).squeeze(-1)
        return outputs

    def describe(self) -> RetrievalWeights:
        """Return the weights under neutral names."""
        weights = self.token_weights
        return RetrievalWeights(
            projection=None if self.projection is None else describe_modules(self.projection, "token"),
            token_weights=None if weights is None else describe_linear(weights, "token_weights"),
        )
