"""Neutral description of a model: its weights are named by their role, not by the names of a library.

The weight of every linear layer is `(in, out)`, so that a graph computes `x @ weight + bias`. A layer is composed of
small parts: where its norms are, how its attention reads positions and how far it sees, whether its feed-forward has a
gate. An architecture is a choice of parts, made by its table in `encort.export.graph.architectures`.

In reading order: `linears`, `attention`, `encoder`, `model`.
"""

from encort.export.graph.description.attention import (
    Attention,
    AttentionHeads,
    Disentangled,
    DistanceBias,
    DistanceEmbeddings,
    PositionScheme,
    Rotary,
)
from encort.export.graph.description.encoder import Embeddings, Encoder, FeedForward, Layer, NormPlacement
from encort.export.graph.description.linears import LayerNorm, Linear, Norm, Part, RMSNorm
from encort.export.graph.description.model import (
    Dense,
    Description,
    Expansion,
    HeadWeights,
    Reads,
    RetrievalWeights,
    SentenceModule,
    UnitNorm,
    VocabularyHead,
)

__all__ = [
    "Attention",
    "AttentionHeads",
    "Dense",
    "Description",
    "Disentangled",
    "DistanceBias",
    "DistanceEmbeddings",
    "Embeddings",
    "Encoder",
    "Expansion",
    "FeedForward",
    "HeadWeights",
    "Layer",
    "LayerNorm",
    "Linear",
    "Norm",
    "NormPlacement",
    "Part",
    "PositionScheme",
    "RMSNorm",
    "Reads",
    "RetrievalWeights",
    "Rotary",
    "SentenceModule",
    "UnitNorm",
    "VocabularyHead",
]
