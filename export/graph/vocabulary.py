"""Write the logits of the vocabulary, which masked words are predicted by, and the sparse embeddings that they make."""

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Encoder, Expansion, VocabularyHead
from encort.export.graph.operators import activate, linear, normalize
from encort.export.graph.sentence import Encoded
from encort.runtime.bundle.manifest import MASK_POSITION, SPARSE_EMBEDDING

COLUMNS = 2048
"""Words of the vocabulary whose logits are in memory at a time, for all tokens of a run."""


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


def sparse_output(builder: GraphBuilder, expansion: Expansion, encoder: Encoder, encoded: Encoded) -> None:
    """Declare the weight of every word of the vocabulary, `(batch, vocabulary)`, as an output of the graph.

    The logits of all words for all tokens would take most of the memory of a run. So the words are taken in parts, and
    each part is pooled over the tokens at once. `log(1 + relu(x))` and the bias keep the order of the logits: for
    `max`, they follow the pooling.

    Args:
        builder: Builder of the graph.
        expansion: How words get weights.
        encoder: The encoder, whose embeddings the head may share.
        encoded: Results of the encoder.
    """
    head, is_max = expansion.words, expansion.pooling == "max"
    x, mask = before_words(builder, head, encoded.hidden), encoded.layout.mask
    first, x = encoded.layout.first(x), encoded.layout.padded(x)
    column = None if mask is None else builder.op("Unsqueeze", mask, builder.integers(2))
    if is_max and column is not None:
        # The first token in the place of padding does not change the largest logits.
        is_token = builder.op("Cast", column, to=ir.DataType.BOOL)
        x = builder.op("Where", is_token, x, builder.op("Unsqueeze", first, builder.integers(1)))
    table, parts = word_table(builder, head, encoder), []
    for start in range(0, len(head.words), COLUMNS):
        end = min(start + COLUMNS, len(head.words))
        words = builder.op("Slice", table, builder.integers(start), builder.integers(end), builder.integers(0))
        logits = builder.op("MatMul", x, builder.op("Transpose", words, perm=[1, 0]))
        if is_max:
            parts.append(builder.op("ReduceMax", logits, builder.integers(1), keepdims=0))
        else:
            weights = _weights(builder, expansion, _biased(builder, head, logits, slice(start, end)))
            weights = weights if column is None else builder.op("Mul", weights, column)
            parts.append(builder.op("ReduceSum", weights, builder.integers(1), keepdims=0))
    pooled = builder.op("Concat", *parts, axis=-1)
    if is_max:
        pooled = _weights(builder, expansion, _biased(builder, head, pooled, slice(None)))
    builder.output(pooled, SPARSE_EMBEDDING, ("batch", len(head.words)))


def _biased(builder: GraphBuilder, head: VocabularyHead, logits: ir.Value, words: slice) -> ir.Value:
    if head.bias is None:
        return logits
    part = "" if words.start is None else f".{words.start}"
    return builder.op("Add", logits, builder.weight(f"{head.name}.bias{part}", head.bias[words]))


def _weights(builder: GraphBuilder, expansion: Expansion, logits: ir.Value) -> ir.Value:
    weights, one = builder.op("Relu", logits), builder.weight("one", np.array(1, np.float32))
    for _ in range(expansion.logarithms):
        weights = builder.op("Log", builder.op("Add", weights, one))
    return weights


def before_words(builder: GraphBuilder, head: VocabularyHead, x: ir.Value) -> ir.Value:
    """Write all of the head before the product with the words, `(..., size)`, from hidden states."""
    if head.dense is not None:
        x = activate(builder, head.activation, linear(builder, head.dense, x))
    return x if head.norm is None else normalize(builder, head.norm, x)


def word_table(builder: GraphBuilder, head: VocabularyHead, encoder: Encoder) -> ir.Value:
    """Return the words of a head, `(vocabulary, size)`, which are written once if they are the encoder's embeddings."""
    is_tied = head.words is encoder.embeddings.words
    return builder.weight(f"{encoder.embeddings.name}.words" if is_tied else f"{head.name}.words", head.words)
