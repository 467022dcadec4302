"""Write the logits of the vocabulary, which masked words are predicted by."""

import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Encoder, VocabularyHead
from encort.export.graph.operators import activate, linear, normalize
from encort.export.graph.sentence import Encoded
from encort.runtime.bundle.manifest import MASK_POSITION


def masked_word_output(builder: GraphBuilder, head: VocabularyHead, encoder: Encoder, encoded: Encoded) -> None:
    """Declare the logits of one token of each text, `(batch, vocabulary)`: of the token at the input `mask_position`.

    In a graph of standard operators, these are the logits of all tokens, as libraries other than encort expect them.
    The logits of all tokens are a thousand times larger than the hidden states' other outputs, so encort avoids them.

    Args:
        builder: Builder of the graph.
        head: The head.
        encoder: The encoder, whose embeddings the head may share.
        encoded: Results of the encoder.
    """
    x, axes = encoded.hidden, encoded.layout.axes
    if not builder.is_standard:
        positions = builder.input(MASK_POSITION, ir.DataType.INT64, ("batch",))
        x, axes = encoded.layout.token(encoded.hidden, positions), ("batch",)
    words = builder.op("Transpose", word_table(builder, head, encoder), perm=[1, 0])
    logits = builder.op("MatMul", before_words(builder, head, x), words)
    if head.bias is not None:
        logits = builder.op("Add", logits, builder.weight(f"{head.name}.bias", head.bias))
    builder.output(logits, head.outputs[0], (*axes, len(head.words)))


def before_words(builder: GraphBuilder, head: VocabularyHead, x: ir.Value) -> ir.Value:
    """Write all of the head before the product with the words, `(..., size)`, from hidden states."""
    if head.dense is not None:
        x = activate(builder, head.activation, linear(builder, head.dense, x))
    return x if head.norm is None else normalize(builder, head.norm, x)


def word_table(builder: GraphBuilder, head: VocabularyHead, encoder: Encoder) -> ir.Value:
    """Return the words of a head, `(vocabulary, size)`, which are written once if they are the encoder's embeddings."""
    is_tied = head.words is encoder.embeddings.words
    return builder.weight(f"{encoder.embeddings.name}.words" if is_tied else f"{head.name}.words", head.words)
