"""Write the outputs of retrieval: vectors and weights of tokens, and weights of words."""

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Dense, Encoder, RetrievalWeights
from encort.export.graph.operators import linear
from encort.export.graph.sentence import Encoded, apply_module, unit_vectors
from encort.export.graph.vocabulary import sparse_output
from encort.runtime.bundle.manifest import TOKEN_EMBEDDINGS, TOKEN_WEIGHTS


def retrieval_outputs(builder: GraphBuilder, encoded: Encoded, weights: RetrievalWeights, encoder: Encoder) -> None:
    """Declare the outputs of retrieval, if the model has any.

    Args:
        builder: Builder of the graph.
        encoded: Results of the encoder.
        weights: Layers on the hidden states.
        encoder: The encoder.
    """
    axes = encoded.layout.axes
    if weights.projection is not None:
        vectors = encoded.hidden
        for module in weights.projection:
            vectors = apply_module(builder, module, vectors)
        sizes = [module.linear.width for module in weights.projection if isinstance(module, Dense)]
        builder.output(unit_vectors(builder, vectors), TOKEN_EMBEDDINGS, (*axes, [encoder.hidden, *sizes][-1]))
    if weights.token_weights is not None:
        column = builder.op("Relu", linear(builder, weights.token_weights, encoded.hidden))
        builder.output(builder.op("Squeeze", column, builder.integers(-1)), TOKEN_WEIGHTS, axes)
    if weights.expansion is not None:
        sparse_output(builder, weights.expansion, encoder, encoded)
