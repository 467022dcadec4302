"""Self-attention: its projections, its heads, how it reads positions and how far it sees."""

from dataclasses import dataclass

from encort.export.graph.description.linears import Linear
from encort.runtime.common.arrays import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class DistanceBias:
    """Positions as a bias of the scores by distance (MPNet).

    Attributes:
        name: Name of the table in the graph.
        table: `(2 * n - 1, heads)` with `n` at least the maximum length; row `key - query + n - 1`.
    """

    name: str
    table: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Rotary:
    """Positions as rotations of queries and keys (RoPE, Su et al. 2021).

    Value `i` of the first half of a head and value `i` of its second half are one pair. The pair turns by an angle that
    grows with the position.

    Attributes:
        name: Prefix of the tables' names in the graph.
        cosines: Cosine of each angle, `(positions, size of a head / 2)`.
        sines: Sine of each angle, of the same shape.
    """

    name: str
    cosines: FloatArray
    sines: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class DistanceEmbeddings:
    """Embeddings of the distances of two tokens.

    Attributes:
        name: Prefix of the tables' names in the graph.
        embeddings: `(rows, hidden)`.
        rows: `2 * n - 1` rows of `embeddings`, with `n` at least the maximum length; the row for the distance
            `query - key` is at `query - key + n - 1`.
    """

    name: str
    embeddings: FloatArray
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Disentangled:
    """Scores of tokens with distances, added to the scores of tokens with tokens (DeBERTa, He et al. 2021).

    The sum of all scores is divided by the root of the size of a head times the number of sums.

    Attributes:
        distances: Embeddings of the distances. Layers may share them, which are then written once.
        key: Projection of the distances that queries of tokens are multiplied with; None if there is none.
        query: Projection of the distances that keys of tokens are multiplied with; None if there is none.
        shares_projections: Whether `key` and `query` are those of the layer's attention.
    """

    distances: DistanceEmbeddings
    key: Linear | None
    query: Linear | None
    shares_projections: bool

    @property
    def sums(self) -> int:
        """Number of scores that are added."""
        return 1 + (self.key is not None) + (self.query is not None)


PositionScheme = DistanceBias | Rotary | Disentangled
"""Ways in which attention reads positions. A new scheme is a class here, and `layers.LayerWriter` writes its nodes."""


@dataclass(frozen=True)
class AttentionHeads:
    """Attention heads of a layer.

    Attributes:
        count: Number of heads.
        size: Values of a token's query, key or value that one head reads.
        groups: Number of heads of the keys and values. It divides `count`; neighbouring heads share keys and values.
    """

    count: int
    size: int
    groups: int

    @property
    def width(self) -> int:
        """Values of all heads."""
        return self.count * self.size


@dataclass(frozen=True, eq=False, kw_only=True)
class Attention:
    """Self-attention.

    Attributes:
        query: Projection to the queries.
        key: Projection to the keys.
        value: Projection to the values.
        output: Projection of the result.
        heads: Attention heads.
        positions: Way in which attention reads positions; None if the embeddings alone know them. Layers may share one
            scheme, which is then written once.
        window: Largest distance of two tokens that see each other; None if all tokens of a text do.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: AttentionHeads
    positions: PositionScheme | None
    window: int | None
